// Children that share the memory of their parent, which waits, up to a time limit, until they have released it.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sharing_child.h"

enum { SLOWEST_MS = 2000 }; // time limit for a running child on a busy machine

struct child {
	volatile uint32_t in_memory; // nonzero while the child uses our memory
	_Alignas(16) char stack[STACK_SIZE];
};

// `flags` are those of `start`. Returns the pid, or a negative errno.
static int launch(struct child *child, int (*function)(void *), int flags, void *argument)
{
	int pid;

	child->in_memory = 1;
	pid = start(function, child->stack, CLONE_CHILD_CLEARTID | flags, argument, &child->in_memory);
	if (pid < 0)
		child->in_memory = 0;
	return pid;
}

// Wait until `flag` is 0 or the time is up. Returns whether it is 0.
static int wait_for(volatile uint32_t *flag, int milliseconds)
{
	struct timespec now, left;
	int64_t deadline = -1, ns;

	while (*flag) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		ns = now.tv_sec * 1000000000ll + now.tv_nsec;
		if (deadline < 0)
			deadline = ns + milliseconds * 1000000ll;
		if (ns >= deadline)
			return 0;
		left = (struct timespec){ (deadline - ns) / 1000000000ll, (deadline - ns) % 1000000000ll };
		syscall(__NR_futex, flag, FUTEX_WAIT, 1, &left, NULL, 0);
	}
	return 1;
}

// Whether a child waits in the kernel for an event; otherwise it runs, or waits for the processor.
static inline int waits(int pid)
{
	char path[32], text[256];
	const char *state;
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 1;
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = '\0';
	state = strstr(text, "State:\t");
	return !state || state[7] != 'R';
}

// Wait until a child sets `flag` to 0. Returns whether it is 0. The time limit is for a child that waits for an event;
// a child that waits for the processor gets SLOWEST_MS.
static inline int wait_for_child(volatile uint32_t *flag, int pid, int milliseconds)
{
	int waited = 0;

	while (!wait_for(flag, milliseconds)) {
		waited += milliseconds;
		if (milliseconds == 0 || waited >= SLOWEST_MS || waits(pid))
			return 0;
	}
	return 1;
}
