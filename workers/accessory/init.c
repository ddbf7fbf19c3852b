// The first process of a PID namespace: argv is its title, "init-NAME".
//
// Root starts it with capabilities, so it is short: no library, no allocation, no file, no input but argv. It closes
// all descriptors, keeps only CAP_KILL, and has the kernel refuse all system calls except the two that it needs. It
// waits GO_SECONDS for SIGUSR1, which confirms its registration, so that a killed accessory leaves no process behind.
// Then it lives until SIGTERM, SIGINT or SIGQUIT. There are no zombies, because SIGCHLD is ignored: wait(2).
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/signal.h>
#include <linux/time_types.h>
#include <stddef.h>
#include <stdint.h>

#include "entry_point.h"
#include "system_call.h"

enum { GO_SECONDS = 5, TASK_COMM_LEN = 16, SHORT_NAME = 10 };

#define PREFIX "init-"
#define MASK(signum) (1ull << ((signum) - 1))
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

// for calls that must not fail: exits with the errno
static long must(long result)
{
	if (result < 0)
		leave(-result);
	return result;
}

// init-NAME if it fits, else i-NAME, truncated, because the kernel keeps 15 bytes
static void set_name(const char *title)
{
	char name[TASK_COMM_LEN] = { 'i', '-' };
	size_t skip = sizeof PREFIX - 1, length = 0, at = 2;

	while (title[length] && length <= skip + SHORT_NAME)
		length++;
	if (length <= skip + SHORT_NAME)
		skip = at = 0;
	while (at < TASK_COMM_LEN - 1 && title[skip])
		name[at++] = title[skip++];
	must(call(__NR_prctl, PR_SET_NAME, (long)name, 0, 0));
}

static void set_capabilities(const struct __user_cap_data_struct sets[2])
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };

	must(call(__NR_capset, (long)&header, (long)sets, 0, 0));
}

static void allow_nothing_but_waiting(void)
{
	// static, because some architectures use memcpy for a copy on the stack, which is missing here
	static const struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_rt_sigtimedwait, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { LENGTH(filter), (struct sock_filter *)filter };

	must(call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0));
	must(call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0));
}

static long wait_signal(uint64_t signals, const struct __kernel_timespec *timeout)
{
	long signum;

	do // the end of a SIGSTOP interrupts the call
		signum = call(__NR_rt_sigtimedwait, (long)&signals, 0, (long)timeout, SIGSET_SIZE);
	while (signum == -EINTR);
	return signum;
}

static _Noreturn void be_init(const char *title)
{
	const uint64_t every_signal = ~0ull, ends = MASK(SIGTERM) | MASK(SIGINT) | MASK(SIGQUIT);
	const struct sigaction ignored = { .sa_handler = SIG_IGN };
	const struct __user_cap_data_struct only_kill[2] = {
		{ .effective = 1u << CAP_KILL, .permitted = 1u << CAP_KILL },
	};
	const struct __kernel_timespec patience = { .tv_sec = GO_SECONDS };

	// the kernel drops signals for process 1 without a handler, unless they are blocked
	must(call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&every_signal, 0, SIGSET_SIZE));
	must(call(__NR_rt_sigaction, SIGCHLD, (long)&ignored, 0, SIGSET_SIZE));
	set_name(title);
	set_capabilities(only_kill);
	allow_nothing_but_waiting();
	if (wait_signal(ends | MASK(SIGUSR1), &patience) == SIGUSR1)
		wait_signal(ends, NULL);
	leave(0);
}

__attribute__((used)) _Noreturn void start(long *stack)
{
	if (stack[0] != 1)
		leave(EINVAL);
	must(call(__NR_close_range, 0, UINT32_MAX, 0, 0));
	be_init((const char *)stack[1]);
}
