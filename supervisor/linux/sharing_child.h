// Children that share the memory of their parent, like after vfork(2).
//
// A child runs on a separate stack with all signals blocked, because it must not run handlers of the parent. While the
// parent runs, the child makes its system calls without the C library, because they share errno.
#pragma once

#include <errno.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>

#include "system_call.h"

enum { STACK_SIZE = 16384 };

// Start a child with all signals blocked. `flags` include the signal that reports its end, or none if only its parent
// reaps it, by pid. With CLONE_CHILD_CLEARTID in `flags`, `in_memory` is cleared once the child has released the
// memory. Returns its pid, or a negative errno.
static int start(int (*child)(void *), char *stack, int flags, void *argument, volatile uint32_t *in_memory)
{
	const uint64_t every_signal = ~0ull;
	uint64_t before;
	int pid, error;

	call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&every_signal, (long)&before, SIGSET_SIZE);
	pid = clone(child, stack + STACK_SIZE, CLONE_VM | flags, argument, NULL, NULL, (void *)in_memory);
	error = errno;
	call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, SIGSET_SIZE);
	return pid < 0 ? -error : pid;
}

// Reduce the descriptor table to these, given in ascending order, so that this process does not keep other descriptors
// of the parent open. Returns a negative errno on failure; the table then may still be that of the parent.
static inline long keep_only(const int *fds, unsigned int count)
{
	const long behind = count > 0 ? (long)fds[count - 1] + 1 : 0;
	const long result = call(__NR_close_range, behind, UINT32_MAX, CLOSE_RANGE_UNSHARE, 0);
	long next = 0;

	for (unsigned int i = 0; result == 0 && i < count; i++) {
		if (fds[i] > next)
			call(__NR_close_range, next, fds[i] - 1, 0, 0);
		next = (long)fds[i] + 1;
	}
	return result;
}
