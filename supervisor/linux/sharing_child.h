// Children that share the memory of their parent, as after vfork(2).
//
// A child runs on a stack of its own and with all signals blocked: a handler of the parent must not run in it. While the
// parent runs, the child makes its system calls without the C library, whose errno both would share.
#pragma once

#include <errno.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>

#include "system_call.h"

enum { STACK_SIZE = 16384 };

// Start a child with all signals blocked. `flags` has the signal that its end is told by, none if only its parent is to
// reap it, by its pid. `in_memory` is cleared once the child has let go of the memory, where `flags`
// have CLONE_CHILD_CLEARTID. Returns its pid, or an errno with a minus sign.
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

// Have a table of descriptors with nothing but these, in ascending order: what else the parent has must not
// stay open because of this process. Returns an errno with a minus sign, and then the table may still be the parent's.
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
