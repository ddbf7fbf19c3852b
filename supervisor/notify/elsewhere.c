// Receiving and closing descriptors of untrusted processes, in dedicated children.
//
// Closing a descriptor may take forever, and a process closes each descriptor of its table at its end at the latest.
// The children share the memory of their parent, but work on descriptor tables of their own (own_table.h). They run
// only the code of this file, with raw system calls, on separate stacks, with all signals blocked. exit(2) releases the
// memory before it closes descriptors, so the parent waits only for the release, and never for a close.
//
// Functions return the pid of a child, which the caller reaps, or a negative errno.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "own_table.h"

#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04 // Linux 6.5
#endif

enum {
	MOST_CLOSED = 1024,
	LINK_SIZE = 64,
	ANY_PATH = AT_EMPTY_PATH,
	DONT_SYNC = AT_STATX_DONT_SYNC,
	MOUNT_ID = 0x1000, // STATX_MNT_ID, Linux 5.8
};

// The identity of a descriptor in a message, without a request to a file system.
struct seen {
	char link[LINK_SIZE]; // the kernel's name, truncated; "/" if it has none
	int32_t has_seals; // true only for memory
	uint32_t major, minor; // of the file system
	uint32_t reserved;
	uint64_t mount;
};

static struct child taker, closer;

// Run a child until it has released our memory. Returns its pid, or a negative errno.
static int run(struct child *child, int (*function)(void *), int milliseconds)
{
	int pid;

	do {
		pid = begin(child, function, SIGCHLD, NULL);
		if (pid < 0)
			return pid;
		if (!wait_for_child(&child->in_memory, pid, milliseconds)) {
			kill(pid, SIGKILL);
			return pid;
		}
		if (table.error == 0)
			return pid;
	} while (may_retry(pid));
	return -table.error;
}

// taking a message

static struct {
	int socket, looks;
	int reply; // socket for a pidfd of the sender, which the kernel adds for SO_PASSPIDFD
	volatile int taken; // bytes, or a negative errno
	volatile int count; // number of descriptors
	struct seen seen[MOST];
} message;

static void look_at(int fd, struct seen *seen)
{
	char path[32] = "/proc/self/fd/", digits[12];
	struct statx status;
	int at = (int)sizeof("/proc/self/fd/") - 1, length = 0, rest = fd;
	long size;

	do
		digits[length++] = (char)('0' + rest % 10);
	while ((rest /= 10) > 0);
	while (length > 0)
		path[at++] = digits[--length];
	path[at] = '\0';
	*seen = (struct seen){ 0 };
	size = call(__NR_readlinkat, AT_FDCWD, (long)path, (long)seen->link, LINK_SIZE - 1);
	if (size <= 0)
		seen->link[0] = '/'; // an unknown name, such as a path over 4096 bytes, counts as a file
	if (seen->link[0] != '/')
		return;
	seen->has_seals = call(__NR_fcntl, fd, F_GET_SEALS, 0, 0) >= 0;
	// `call` supports fewer arguments; the parent ignores the shared errno
	if (!seen->has_seals && syscall(__NR_statx, fd, "", ANY_PATH | DONT_SYNC, MOUNT_ID, &status) == 0) {
		seen->major = status.stx_dev_major;
		seen->minor = status.stx_dev_minor;
		seen->mount = status.stx_mask & MOUNT_ID ? status.stx_mnt_id : 0;
	}
}

static void look_at_all(const struct cmsghdr *part)
{
	for (size_t at = CMSG_LEN(0); at + sizeof(int) <= part->cmsg_len && message.count < MOST; at += sizeof(int)) {
		int fd;

		memcpy(&fd, (const char *)part + at, sizeof(fd));
		look_at(fd, &message.seen[message.count]);
		message.count++;
	}
}

static int take(void *argument)
{
	_Alignas(struct cmsghdr) static char control[CONTROL_SIZE];
	struct msghdr header = { .msg_control = control, .msg_controllen = sizeof(control) };
	int socket, reply = -1, pidfd = -1;

	(void)argument;
	if (message.looks ? take_table(&message.socket, 1, &socket) < 0
			  : take_two(message.socket, message.reply, &socket, &reply) < 0)
		leave(0);
	message.taken = (int)call(__NR_recvmsg, socket, (long)&header,
				  MSG_DONTWAIT | MSG_CMSG_CLOEXEC | (message.looks ? MSG_PEEK : 0), 0);
	if (message.taken < 0)
		leave(0);
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part)) {
		if (part->cmsg_level != SOL_SOCKET)
			continue;
		if (part->cmsg_type == SCM_RIGHTS && message.looks)
			look_at_all(part);
		else if (part->cmsg_type == SCM_PIDFD && part->cmsg_len >= CMSG_LEN(sizeof(pidfd)))
			memcpy(&pidfd, CMSG_DATA(part), sizeof(pidfd));
	}
	if (!message.looks && pidfd >= 0)
		send_over(reply, &pidfd, 1);
	leave(0);
}

static int receive(int socket, int looks, int reply, int milliseconds)
{
	if (taker.in_memory)
		return -EBUSY;
	message.socket = socket;
	message.looks = looks;
	message.reply = reply;
	message.taken = -ETIMEDOUT;
	message.count = 0;
	return run(&taker, take, milliseconds);
}

// Take the next datagram from a socket, and drop its descriptors. `taken` gets the number of received bytes, 0 because
// there is no room for any, or a negative errno. A pidfd of the sender, which the kernel adds for SO_PASSPIDFD, is sent
// over `reply`.
int take_elsewhere(int socket, int reply, int milliseconds, int *taken)
{
	int pid = receive(socket, 0, reply, milliseconds);

	*taken = message.taken;
	return pid;
}

// Identify the descriptors in the next datagram, which remains in the queue. `seen` has room for the maximal number of
// descriptors in a message; `count` gets their number, or a negative errno.
int look_elsewhere(int socket, int milliseconds, struct seen *seen, int *count)
{
	int pid = receive(socket, 1, -1, milliseconds);

	*count = message.taken < 0 ? message.taken : message.count;
	if (pid > 0 && *count > 0)
		memcpy(seen, message.seen, (size_t)*count * sizeof(*seen));
	return pid;
}

// fetching

static struct {
	int needed[MOST + 1], many; // the socket, and pidfds of the processes
	int socket, count;
	int processes[MOST], numbers[MOST]; // like `socket`, processes are given by their places in `needed`
	volatile int sent; // 0, or a negative errno
	struct seen seen[MOST];
} fetching;

static int fetch(void *argument)
{
	static int fds[MOST], own[MOST + 1];
	int count = 0;

	(void)argument;
	if (take_table(fetching.needed, fetching.many, own) < 0)
		leave(0);
	for (int i = 0; i < fetching.count; i++) {
		int fd = (int)call(__NR_pidfd_getfd, own[fetching.processes[i]], fetching.numbers[i], 0, 0);

		fetching.seen[i] = (struct seen){ 0 };
		if (fd < 0)
			continue;
		look_at(fd, &fetching.seen[i]);
		fds[count++] = fd;
	}
	fetching.sent = count > 0 ? send_over(own[fetching.socket], fds, count) : 0;
	leave(0);
}

// Send duplicates of `count` descriptors of other processes over a socket, in a message without bytes. `needed` are the
// socket and pidfds of the processes, in ascending order; `socket` and `processes` are places in it. `seen` gets the
// identities of the descriptors, with an empty link for missing ones, which are not sent. `sent` gets 0 or a negative
// errno. Without any descriptor, no message is sent.
int fetch_elsewhere(const int *needed, int many, int socket, const int *processes, const int *numbers, int count,
		    int milliseconds, struct seen *seen, int *sent)
{
	int pid;

	if (count > MOST || many > MOST + 1)
		return -EINVAL;
	if (taker.in_memory)
		return -EBUSY;
	memcpy(fetching.needed, needed, (size_t)many * sizeof(*needed));
	memcpy(fetching.processes, processes, (size_t)count * sizeof(*processes));
	memcpy(fetching.numbers, numbers, (size_t)count * sizeof(*numbers));
	fetching.many = many;
	fetching.socket = socket;
	fetching.count = count;
	fetching.sent = -ETIMEDOUT;
	pid = run(&taker, fetch, milliseconds);
	*sent = fetching.sent;
	memcpy(seen, fetching.seen, (size_t)count * sizeof(*seen));
	return pid;
}

// closing

static struct {
	int fds[MOST_CLOSED];
	int count;
	volatile uint32_t begins; // nonzero until the child has its own descriptors
	volatile uint32_t alone; // nonzero once the parent has closed its descriptors
} closing;

static int close_last(void *argument)
{
	static int own[MOST_CLOSED];
	int error;

	(void)argument;
	call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	error = take_table(closing.fds, closing.count, own);
	closing.begins = 0;
	call(__NR_futex, (long)&closing.begins, FUTEX_WAKE, 1, 0);
	if (error < 0)
		leave(0);
	// detects a parent that died before the prctl
	while (!closing.alone && call(__NR_getppid, 0, 0, 0, 0) == table.parent)
		call(__NR_futex, (long)&closing.alone, FUTEX_WAIT, 0, 0);
	leave(0);
}

// Close descriptors, given in ascending order, so that the last close of each happens in an exiting child, for which
// the kernel does not linger. If there is an error, no descriptor is closed.
int close_elsewhere(const int *fds, int count, int milliseconds)
{
	int pid;

	if (count < 1 || count > MOST_CLOSED)
		return -EINVAL;
	if (closer.in_memory)
		return -EBUSY;
	memcpy(closing.fds, fds, (size_t)count * sizeof(*fds));
	closing.count = count;
	do {
		closing.begins = 1;
		closing.alone = 0;
		pid = begin(&closer, close_last, SIGCHLD, NULL);
		if (pid < 0)
			return pid;
		// a copied table has had all descriptors from the beginning
		if (!table.copies && !wait_for_child(&closing.begins, pid, milliseconds)) {
			kill(pid, SIGKILL);
			return -ETIMEDOUT; // the caller later reaps the child as an orphan
		}
		if (table.copies || table.error == 0)
			break;
	} while (may_retry(pid));
	if (table.error != 0)
		return -table.error;
	for (int i = 0; i < count; i++)
		call(__NR_close, fds[i], 0, 0, 0);
	closing.alone = 1;
	syscall(__NR_futex, &closing.alone, FUTEX_WAKE, 1, NULL, NULL, 0);
	if (!wait_for_child(&closer.in_memory, pid, milliseconds))
		kill(pid, SIGKILL);
	return pid;
}
