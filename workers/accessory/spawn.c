// Starting processes for the accessory, at a cost that does not depend on the number of its descriptors.
//
// The children share its memory, and run only the code of this file.
//
// Functions return a pid, or a negative errno.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sharing_child.h"

enum { PAUSE_USEC = 1000, DISPOSALS = 16, DISPOSED = 64 };

static _Alignas(16) char passing_stack[STACK_SIZE]; // for a child whose end or exec the parent awaits
static _Alignas(16) char holding_stack[STACK_SIZE]; // for a child that continues beside the parent

// Reap a child that has ended or is about to end, even if signals interrupt the wait.
static void reap(int pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

struct execution {
	const char *program;
	const char *title;
	volatile long error;
};

static int execute(void *argument)
{
	struct execution *execution = argument;
	const char *const argv[] = { execution->title, NULL }, *const environment[] = { NULL };

	// an empty table: thousands of descriptors of the parent are neither copied nor closed
	execution->error = -call(__NR_close_range, 0, UINT32_MAX, CLOSE_RANGE_UNSHARE, 0);
	if (execution->error == 0)
		execution->error = -call(__NR_execve, (long)execution->program, (long)argv, (long)environment, 0);
	leave(1);
}

// Execute `program` as process 1 of a new PID namespace. The parent waits for the exec.
int spawn_init(const char *program, const char *title)
{
	struct execution execution = { program, title, 0 };
	int pid = start(execute, passing_stack, SIGCHLD | CLONE_FILES | CLONE_VFORK | CLONE_NEWPID, &execution, NULL);

	if (pid > 0 && execution.error != 0) {
		reap(pid);
		return -(int)execution.error;
	}
	return pid;
}

// Pause until a signal kills the process. It keeps its namespace alive, and dies with its parent.
static int hold_namespace(void *argument)
{
	const long parent = *(const long *)argument;

	call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	// detects a parent that died before the prctl
	while (call(__NR_getppid, 0, 0, 0, 0) == parent)
		call(__NR_ppoll, 0, 0, 0, 0);
	leave(0);
}

// Take the effective ids, and make all permitted capabilities effective again, which the change of user cleared.
static long become(long uid, long gid)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	long result;

	if ((result = call(__NR_setresgid, -1, gid, -1, 0)) < 0 || (result = call(__NR_setresuid, -1, uid, -1, 0)) < 0)
		return result;
	if ((result = call(__NR_capget, (long)&header, (long)sets, 0, 0)) < 0)
		return result;
	sets[0].effective = sets[0].permitted;
	sets[1].effective = sets[1].permitted;
	return call(__NR_capset, (long)&header, (long)sets, 0, 0);
}

struct owner {
	long uid, gid, parent;
	volatile long result; // a pid, or a negative errno
};

// A user namespace belongs to the effective ids of its maker. So this process takes those ids, and ends immediately
// after, because that user could lower its priority, sched_setscheduler(2). The process that it starts becomes a child
// of its parent. Real and saved ids remain those of root, and neither process is dumpable: the owner of a namespace
// could trace a process in it, which shares the memory of the parent.
static int make_user_namespace(void *argument)
{
	struct owner *owner = argument;
	int pid;

	owner->result = become(owner->uid, owner->gid);
	if (owner->result == 0)
		owner->result = call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0);
	if (owner->result == 0) {
		pid = clone(hold_namespace, holding_stack + STACK_SIZE,
			    CLONE_VM | CLONE_FILES | CLONE_NEWUSER | CLONE_PARENT | SIGCHLD, &owner->parent);
		owner->result = pid < 0 ? -errno : pid;
	}
	leave(0);
}

// Start a process in a new user namespace of the user. The caller kills and reaps it before the next call.
int spawn_user_namespace(uint32_t uid, uint32_t gid)
{
	static struct owner owner;
	int pid;

	if (uid == UINT32_MAX || gid == UINT32_MAX) // for the kernel, -1 means no change
		return -EINVAL;
	owner = (struct owner){ uid, gid, getpid(), -ECHILD };
	pid = start(make_user_namespace, passing_stack, SIGCHLD | CLONE_FILES | CLONE_VFORK, &owner, NULL);
	if (pid < 0)
		return pid;
	reap(pid);
	return (int)owner.result;
}

struct disposal {
	long parent;
	unsigned int count;
	int fds[DISPOSED]; // sockets, in ascending order
	_Alignas(16) char stack[STACK_SIZE];
};

static void wake_up(int signum)
{
	(void)signum;
}

// Take all datagrams from a socket that receives no more, without room for descriptors: the kernel drops them before a
// call returns. The truncated credentials distinguish an empty datagram from the end of the queue.
static void take_everything(int fd)
{
	struct msghdr message;
	long size;

	do {
		message = (struct msghdr){ 0 };
		size = call(__NR_recvmsg, fd, (long)&message, MSG_DONTWAIT, 0);
	} while (size > 0 || (size == 0 && message.msg_flags & MSG_CTRUNC) || size == -ECONNRESET);
}

// A dropped socket may linger, but at most until the next alarm. Alarm and handler belong to this process.
static int dispose(void *argument)
{
	const struct disposal *disposal = argument;
	const struct sigaction wakes = { .sa_handler = wake_up };
	const struct itimerval often = { { 0, PAUSE_USEC }, { 0, PAUSE_USEC } };
	const uint64_t all_but_alarm = ~(1ull << (SIGALRM - 1));

	call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	if (call(__NR_getppid, 0, 0, 0, 0) != disposal->parent || keep_only(disposal->fds, disposal->count) < 0)
		leave(1);
	sigaction(SIGALRM, &wakes, NULL);
	call(__NR_setitimer, ITIMER_REAL, (long)&often, 0, 0);
	call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&all_but_alarm, 0, SIGSET_SIZE);
	for (unsigned int i = 0; i < disposal->count; i++)
		take_everything(disposal->fds[i]);
	leave(0);
}

// Start a process that takes the remaining datagrams of some sockets, drops the descriptors in them, however long that
// takes, and exits. The caller keeps the sockets, and closes them only after its end. `number` distinguishes
// concurrent processes.
int spawn_disposal(unsigned int number, const int *fds, unsigned int count)
{
	static struct disposal disposals[DISPOSALS];
	struct disposal *disposal = &disposals[number];

	if (number >= DISPOSALS || count == 0 || count > DISPOSED)
		return -EINVAL;
	disposal->parent = getpid();
	disposal->count = count;
	for (unsigned int i = 0; i < count; i++)
		disposal->fds[i] = fds[i];
	return start(dispose, disposal->stack, SIGCHLD | CLONE_FILES, disposal, NULL);
}
