// Starting the processes that the accessory needs, at a cost that does not grow with its descriptors.
//
// The children share its memory and run nothing but what is here.
//
// Functions return a pid, or an errno with a minus sign.
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

static _Alignas(16) char passing_stack[STACK_SIZE]; // of one whose end, or exec, the parent waits for
static _Alignas(16) char holding_stack[STACK_SIZE]; // of one that lives beside it

// Reap a child that has ended or is about to; no signal that a handler takes leaves it behind.
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

	// a table of its own with nothing in it: what the parent has, thousands perhaps, is neither copied nor closed
	execution->error = -call(__NR_close_range, 0, UINT32_MAX, CLOSE_RANGE_UNSHARE, 0);
	if (execution->error == 0)
		execution->error = -call(__NR_execve, (long)execution->program, (long)argv, (long)environment, 0);
	leave(1);
}

// Execute `program` as process 1 of a new PID namespace.  The parent waits until that is done.
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

// Pause until somebody kills it.  It holds the namespace that it was started in, and dies with its parent.
static int hold_namespace(void *argument)
{
	const long parent = *(const long *)argument;

	call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	// one that died before that is found out now
	while (call(__NR_getppid, 0, 0, 0, 0) == parent)
		call(__NR_ppoll, 0, 0, 0, 0);
	leave(0);
}

// Have these effective ids and all capabilities that are permitted, which a change of user takes out of effect.
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
	volatile long result; // a pid, or an errno with a minus sign
};

// A user namespace belongs to the effective ids of whoever makes it, so this has them, and ends when it is done: who has
// the effective id of a user can be set back by that user, sched_setscheduler(2).  What it starts is a child of its
// parent.  Real and saved ids remain root's, and nobody may trace either: the owner of a namespace could trace what
// is in it, and the memory is the parent's.
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

// Start a process in a new user namespace of that user.  The caller kills and reaps it, before it starts another.
int spawn_user_namespace(uint32_t uid, uint32_t gid)
{
	static struct owner owner;
	int pid;

	if (uid == UINT32_MAX || gid == UINT32_MAX) // to the kernel: stay who you are
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

// Take every datagram from a socket that receives no more, without room for descriptors: the kernel lets go of them
// before a call comes back.  A datagram of no bytes is told from the end by the credentials that did not fit either.
static void take_everything(int fd)
{
	struct msghdr message;
	long size;

	do {
		message = (struct msghdr){ 0 };
		size = call(__NR_recvmsg, fd, (long)&message, MSG_DONTWAIT, 0);
	} while (size > 0 || (size == 0 && message.msg_flags & MSG_CTRUNC) || size == -ECONNRESET);
}

// A socket that is let go of may linger, but not on from the next alarm.  Alarm and handler are this process's own.
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

// Start a process that takes what is left in some sockets and lets go of the descriptors in it, however long that takes,
// and exits.  The sockets stay the caller's, who does not close them before.  `number` tells apart what runs at the same time.
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
