// Children that share the memory of their parent, but have descriptor tables of their own.
//
// A child begins in the table of its parent, switches to an empty one, and fetches the descriptors that it needs. A
// copy of a table with thousands of descriptors, and its close, would take milliseconds, and each close of a file may
// wait for its server. (The kernel copies the first 64 anyway, so a child that needs only these takes them.) If the
// child may not fetch, because pidfd_getfd(2) requires the right to trace the parent, which Yama or a container may
// deny, it is started with a copy, and so are all later children.
#pragma once

#include <errno.h>
#include <linux/close_range.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "awaited_child.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434 // Linux 5.3
#endif
#ifndef __NR_pidfd_getfd
#define __NR_pidfd_getfd 438 // Linux 5.6, the same on every architecture here
#endif

enum {
	ALWAYS_COPIED = 64, // descriptors
	MOST = 253, // SCM_MAX_FD of the kernel
	CONTROL_SIZE = 2048,
};

// How children get their tables.
static struct {
	int copies; // whether they copy the parent's table
	int parent;
	volatile int error; // why the last child could not fetch, or 0
} table;

// Switch to a table with only these descriptors, given in ascending order, under the numbers `own`.
static int take_table(const int *fds, int count, int *own)
{
	long result, parent;

	if (table.copies || fds[count - 1] < ALWAYS_COPIED) {
		result = keep_only(fds, (unsigned int)count);
		memcpy(own, fds, (size_t)count * sizeof(*fds));
		if (result < 0 && !table.copies)
			table.error = (int)-result;
		return table.error ? -1 : 0;
	}
	result = call(__NR_close_range, 0, UINT32_MAX, CLOSE_RANGE_UNSHARE, 0);
	if (result >= 0)
		result = parent = call(__NR_pidfd_open, table.parent, 0, 0, 0);
	for (int i = 0; i < count && result >= 0; i++) {
		result = call(__NR_pidfd_getfd, parent, fds[i], 0, 0);
		own[i] = (int)result;
	}
	if (result < 0)
		table.error = (int)-result;
	else
		call(__NR_close, parent, 0, 0, 0);
	return result < 0 ? -1 : 0;
}

// Do the same with two descriptors in any order.
static inline int take_two(int one, int other, int *own_one, int *own_other)
{
	const int is_ordered = one < other;
	const int needed[2] = { is_ordered ? one : other, is_ordered ? other : one };
	int own[2];

	if (take_table(needed, 2, own) < 0)
		return -1;
	*own_one = own[!is_ordered];
	*own_other = own[is_ordered];
	return 0;
}

// Send at most MOST descriptors over a socket, in a message without bytes. Returns 0, or a negative errno.
static inline int send_over(int socket, const int *fds, int count)
{
	_Alignas(struct cmsghdr) char control[CONTROL_SIZE]; // not static: late children send at any time
	struct msghdr header = { .msg_control = control, .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int)) };
	struct cmsghdr *part = CMSG_FIRSTHDR(&header);

	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_RIGHTS;
	part->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
	memcpy(CMSG_DATA(part), fds, (size_t)count * sizeof(int));
	return (int)call(__NR_sendmsg, socket, (long)&header, MSG_DONTWAIT, 0);
}

// Start a child; `signal` reports its end, 0 for none. Returns its pid, or a negative errno.
static int begin(struct child *child, int (*function)(void *), int signal, void *argument)
{
	table.parent = getpid();
	table.error = 0;
	return launch(child, function, signal | (table.copies ? 0 : CLONE_FILES), argument);
}

// Called after a child could not fetch, and so has nothing to close. Returns whether to try again with a copy.
static int may_retry(int pid)
{
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	if (table.copies || (table.error != EPERM && table.error != EACCES && table.error != ENOSYS))
		return 0;
	table.copies = 1;
	return 1;
}
