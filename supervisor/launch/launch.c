// Start of a service: `launch PLAN ERRORS`, with the numbers of two descriptors.
//
// spawnd starts this program in place of a fork of itself, without spawnd's memory. It executes the plan, a sealed
// memfd, and then the program of the service. It reports a failure on the socket `ERRORS`, where it also waits for the
// byte that permits it to continue. It uses no library, allocates only pages, and has no input but the plan and the
// files that the plan names.
#include "carry_out.h"
#include "freestanding.h"

static const struct plan *read_plan(long fd)
{
	size_t size;
	const struct plan *plan = read_sealed(fd, PLAN_LARGEST, &size);

	if (!is_plan(plan, size, SERVICE))
		fail_without_plan();
	return plan;
}

__attribute__((used)) _Noreturn void start(long *stack)
{
	const char **words = (const char **)(stack + 1);

	if (stack[0] != 3)
		leave(EXIT_CHILD_FAILED);
	begin_report((int)number_of(words[2]));
	prctl(PR_SET_NAME, (long)"spawnd: launch", 0); // by this spawnd knows a death before the exec
	carry_out(read_plan(number_of(words[1])));
	leave(EXIT_CHILD_FAILED);
}
