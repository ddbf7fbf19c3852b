// Becoming a service: `launch PLAN ERRORS`, the numbers of two descriptors.
//
// spawnd starts it in the place of a fork of itself, with nothing of its memory.  It carries out the plan, a sealed
// memfd, and executes the program.  A failure is reported on the socket `ERRORS`, from which comes also the byte that
// lets it go on.  No library, no allocation beyond pages, no input but the plan and what that names.
#include "carry_out.h"
#include "entry_point.h"

#define F_GET_SEALS_ (1024 + 10)
#define ALL_SEALS 0xf // that it is not sealed further, and does not shrink, grow or change

// What a compiler may call by itself.
__attribute__((used)) void *memcpy(void *to, const void *from, size_t size)
{
	copy(to, from, size);
	return to;
}

__attribute__((used)) void *memset(void *to, int byte, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((char *)to)[i] = (char)byte;
	return to;
}

// An operation for what fails before there is a plan.
static const struct {
	struct operation operation;
	char strings[8];
} start_operation = { { 0, 0, 0, LABELS, 24 }, "start\0" };

static long number_of(const char *digits)
{
	long number = 0;

	while (*digits >= '0' && *digits <= '9')
		number = number * 10 + (*digits++ - '0');
	return number;
}

static const struct plan *map_plan(long fd)
{
	struct statx status;
	void *found;

	if (must(call(__NR_fcntl, fd, F_GET_SEALS_, 0, 0)) != ALL_SEALS)
		must(-EPERM);
	must(look_at((int)fd, &status));
	found = (void *)must(call_six(__NR_mmap, 0, (long)status.stx_size, PROT_READ, MAP_PRIVATE, fd, 0));
	close_fd(fd);
	if (status.stx_size > PLAN_LARGEST || !is_plan(found, status.stx_size))
		fail(&(struct failure){ EINVAL, "plan", "", 0, 0 });
	return found;
}

__attribute__((used)) _Noreturn void start(long *stack)
{
	const char **words = (const char **)(stack + 1);

	if (stack[0] != 3)
		leave(EXIT_CHILD_FAILED);
	report.operation = &start_operation.operation;
	report.fd = (int)number_of(words[2]);
	prctl(PR_SET_NAME, (long)"launch", 0);
	carry_out(map_plan(number_of(words[1])));
	leave(EXIT_CHILD_FAILED);
}
