// Calls on pipes, and bind(2), with a time limit.
//
// A process that reads from a pipe, writes to it, opens it or closes its last descriptor holds the pipe's lock, and may
// hold it forever in a page fault on its buffer. Others wait for the lock even with O_NONBLOCK, and no signal ends the
// wait. Therefore a child makes the call. It shares the memory of its parent, and has a descriptor table of its own
// with only the pipe (own_table.h), which costs about 0.05 ms. Its end causes no signal, so this code alone reaps it. A
// waiting child keeps its memory, which has the data once the child has ended.
//
// The kernel walks along the path of a bind by itself. A user who owns a folder there can lead it to a file system that
// never answers, however well the path was checked before. The umask of the bind is that of the child alone.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "own_table.h"

enum {
	ROOM = 65536, // bytes per read or write: the default capacity of a pipe
	END_MS = 20, // from its last call to its end
};

enum { READ = 'r', WRITE = 'w', OPEN = 'o', CLOSE = 'c', BIND = 'b', NO_PERMISSIONS = 0777 };

struct pipe_call {
	volatile int32_t result; // bytes, or a negative errno
	char data[ROOM];
	// private to this file
	struct child child;
	volatile uint32_t begins; // nonzero until the child has a table of its own
	volatile uint32_t alone; // nonzero once the parent has closed its descriptor
	int operation, size, pipe, socket; // to OPEN, `size` is the access mode; the `pipe` of BIND is a socket
};

// Descriptors that a parent reserves if children may not fetch from it, to avoid a copy of its table of thousands. The
// number of the first is one of those that are always copied; a pipe gets this number while a child begins.
static struct {
	int low, other;
} reserved = { -1, -1 };

static void name_descriptor(int fd, char *path)
{
	char digits[12];
	int length = 0;

	path = stpcpy(path, "/proc/self/fd/");
	do
		digits[length++] = (char)('0' + fd % 10);
	while ((fd /= 10) > 0);
	while (length > 0)
		*path++ = digits[--length];
	*path = '\0';
}

// Open the pipe of a descriptor again.
static long open_again(int fd, int flags)
{
	char path[32];

	name_descriptor(fd, path);
	return call(__NR_openat, AT_FDCWD, (long)path, flags | O_NONBLOCK | O_CLOEXEC, 0);
}

static long make_call(struct pipe_call *job, int pipe, int socket)
{
	long result;
	int fd;

	switch (job->operation) {
	case READ:
		return call(__NR_read, pipe, (long)job->data, job->size, 0);
	case WRITE:
		// a new open file, because others share the flags of this one
		result = open_again(pipe, O_WRONLY);
		return result < 0 ? result : call(__NR_write, result, (long)job->data, job->size, 0);
	case OPEN:
		result = open_again(pipe, job->size);
		fd = (int)result;
		return result < 0 ? result : send_over(socket, &fd, 1);
	case BIND:
		call(__NR_umask, NO_PERMISSIONS, 0, 0, 0);
		return call(__NR_bind, pipe, (long)job->data, job->size, 0);
	case CLOSE:
		// ends this child if the parent dies before it closes its descriptor
		while (!job->alone)
			call(__NR_futex, (long)&job->alone, FUTEX_WAIT, 0, 0);
		return 0;
	}
	return -EINVAL;
}

static int work(void *argument)
{
	struct pipe_call *job = argument;
	int pipe, socket = -1, error;

	call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	if (job->socket < 0)
		error = take_table(&job->pipe, 1, &pipe);
	else
		error = take_two(job->pipe, job->socket, &pipe, &socket);
	job->begins = 0;
	call(__NR_futex, (long)&job->begins, FUTEX_WAKE, 1, 0);
	if (error == 0)
		job->result = (int32_t)make_call(job, pipe, socket);
	leave(0);
}

struct pipe_call *new_pipe_call(void)
{
	return malloc(sizeof(struct pipe_call)); // not initialised, because most calls touch few of its pages
}

void free_pipe_call(struct pipe_call *job)
{
	free(job);
}

// Keep two arbitrary descriptors, the first with a low number if one is free.
void reserve_pipe_call(int low, int other)
{
	reserved.low = low;
	reserved.other = other;
}

static void close_own(struct pipe_call *job, int pipe)
{
	close(pipe);
	job->alone = 1;
	syscall(__NR_futex, &job->alone, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int start_child(struct pipe_call *job, int milliseconds)
{
	int pid;

	do {
		job->result = -ETIMEDOUT;
		job->begins = 1;
		job->alone = 0;
		pid = begin(&job->child, work, 0, job);
		if (pid < 0)
			return pid;
		if (job->operation != CLOSE)
			wait_for(&job->child.in_memory, milliseconds); // usually the child has ended by then
		// a child that has not begun by then never will: KILL comes before its next call
		if (!table.copies && !wait_for(&job->begins, SLOWEST_MS))
			kill(pid, SIGKILL);
		if (table.error == 0)
			return pid;
	} while (may_retry(pid));
	return -table.error;
}

// Start a child that makes a call, and wait for it up to a time limit. OPEN requires a `socket`, which gets the new
// descriptor; it is -1 otherwise. Returns the pid, or a negative errno. `job` may be used again once `end_pipe_call`
// returns true. CLOSE closes the descriptor; the last close of the pipe happens in an exiting child.
int begin_pipe_call(struct pipe_call *job, int operation, int pipe, int socket, int size, int milliseconds)
{
	const int is_lent = reserved.low >= 0 && socket < 0 && pipe >= ALWAYS_COPIED;
	int pid;

	job->operation = operation;
	job->size = size < ROOM ? size : ROOM;
	job->pipe = is_lent ? reserved.low : pipe;
	job->socket = socket;
	if (is_lent)
		dup3(pipe, reserved.low, O_CLOEXEC);
	pid = start_child(job, milliseconds);
	if (is_lent)
		dup3(reserved.other, reserved.low, O_CLOEXEC);
	if (pid > 0 && operation == CLOSE)
		close_own(job, pipe);
	return pid;
}

// Reap a child that has released the memory. It still has to close its copy of the pipe, which waits for the lock: the
// time limit is for that, and a child that waits for the processor gets SLOWEST_MS.
static int reap(int pid, int milliseconds)
{
	struct pollfd ends = { .events = POLLIN };
	int ended = waitpid(pid, NULL, __WALL | WNOHANG) != 0, is_blocked;

	if (ended || milliseconds == 0)
		return ended;
	ends.fd = (int)syscall(__NR_pidfd_open, pid, 0);
	for (int waited = 0; ends.fd >= 0 && !ended && waited < SLOWEST_MS; waited += milliseconds) {
		poll(&ends, 1, milliseconds);
		is_blocked = waits(pid); // or has ended
		ended = waitpid(pid, NULL, __WALL | WNOHANG) != 0;
		if (is_blocked)
			break;
	}
	if (ends.fd >= 0)
		close(ends.fd);
	return ended;
}

// Return whether the child has ended, and reap it. Waits for its end, up to a time limit while it is blocked.
int end_pipe_call(struct pipe_call *job, int pid, int milliseconds)
{
	if (!wait_for_child(&job->child.in_memory, pid, milliseconds))
		return 0;
	return reap(pid, milliseconds ? END_MS : 0);
}
