// Start of a service: `launch PLAN ERRORS`, with the numbers of two descriptors.
//
// spawnd starts this program in place of a fork of itself, without spawnd's memory. It executes the plan, a sealed
// memfd, and then the program of the service. It reports a failure on the socket `ERRORS`, where it also waits for the
// byte that permits it to continue. It uses no library, allocates only pages, and has no input but the plan and the
// files that the plan names.
#include "carry_out.h"
#include "entry_point.h"

#define F_GET_SEALS_ (1024 + 10)
#define ALL_SEALS 0xf // no further seals, no change of size or content

// Functions that a compiler may call implicitly.
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

static long number_of(const char *digits)
{
	long number = 0;

	while (*digits >= '0' && *digits <= '9')
		number = number * 10 + (*digits++ - '0');
	return number;
}

static const struct plan *read_plan(long fd)
{
	struct statx status;
	void *found;

	if (must(call(__NR_fcntl, fd, F_GET_SEALS_, 0, 0)) != ALL_SEALS)
		must(-EPERM);
	must(look_at((int)fd, &status));
	if (status.stx_size > PLAN_LARGEST)
		must(-EFBIG);
	found = must_have(new_memory(status.stx_size)); // not a mapping: a small plan shares a page with other memory
	if ((uint64_t)must(call(__NR_pread64, fd, (long)found, (long)status.stx_size, 0)) != status.stx_size)
		must(-EIO);
	close_fd(fd);
	if (!is_plan(found, status.stx_size, 1))
		fail_without_plan();
	return found;
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
