// Execution of a valid plan.
#pragma once

#include <linux/landlock.h>
#include <linux/prctl.h>
#include <linux/sched/types.h>
#include <linux/signal.h>
#include <linux/sockios.h>

#include "arguments.h"
#include "descriptors.h"

enum {
	LAST_SIGNAL = 64,
	LARGEST_SET = 8192, // processors
	LARGEST_OPENED = 8192, // bytes of a file such as a banner
	IOPRIO_WHO_PROCESS_ = 1,
	KEYCTL_JOIN_SESSION_KEYRING_ = 1,
	AF_INET_ = 2,
	IFF_UP_ = 1,
};

static long ruleset; // of Landlock

// Bit 0 of the set is for signal 1.
static void default_signals(int unblock, uint64_t signals)
{
	static const struct sigaction by_default = { .sa_handler = SIG_DFL };
	const uint64_t none = 0;

	for (int signum = 1; signum <= LAST_SIGNAL; signum++)
		if (signals >> (signum - 1) & 1)
			must(call(__NR_rt_sigaction, signum, (long)&by_default, 0, SIGSET_SIZE));
	if (unblock)
		must(call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, SIGSET_SIZE));
}

static void write_text(const char *path, const char *text)
{
	const long fd = must(call(__NR_openat, AT_FDCWD, (long)path, O_WRONLY | O_CLOEXEC, 0));

	must(call(__NR_write, fd, (long)text, (long)length_of(text), 0));
	close_fd(fd);
}

static void set_affinity(const struct operation *operation)
{
	static uint64_t set[LARGEST_SET / 64] APART;

	for (uint32_t i = 0; i < operation->number_count; i++) {
		if (operation->numbers[i] >= LARGEST_SET)
			must(-EINVAL);
		set[operation->numbers[i] / 64] |= 1ull << operation->numbers[i] % 64;
	}
	must(call(__NR_sched_setaffinity, 0, sizeof set, (long)set, 0));
}

static void set_policy(const uint64_t *numbers)
{
	const int priority = (int)numbers[1];

	must(call(__NR_sched_setscheduler, 0, (long)numbers[0], (long)&priority, 0));
}

static void set_limit(const uint64_t *numbers)
{
	must(call(__NR_prlimit64, 0, (long)numbers[0], (long)(numbers + 1), 0));
}

static void take_environment(const struct operation *operation)
{
	const char *assignment = string_of(operation, LABELS);

	make_room(operation->string_count);
	for (uint32_t i = LABELS; i < operation->string_count; i++, assignment = next_string(assignment))
		assign(assignment);
}

static void join_namespace(long fd, uint64_t type)
{
	must(call(__NR_setns, fd, (long)type, 0, 0));
	close_fd(fd);
}

static void enter_namespace(const struct operation *operation)
{
	const char *path = string_of(operation, PATH);

	join_namespace(must(call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0)), operation->numbers[0]);
}

static void make_namespaces(uint64_t types)
{
	const struct {
		char name[16];
		short flags;
		char rest[22];
	} loopback = { "lo", IFF_UP_, "" }; // struct ifreq
	long fd;

	must(call(__NR_unshare, (long)types, 0, 0, 0));
	if (!(types & CLONE_NEWNET))
		return;
	fd = must(call(__NR_socket, AF_INET_, SOCK_DGRAM_ | O_CLOEXEC, 0, 0));
	must(call(__NR_ioctl, fd, SIOCSIFFLAGS, (long)&loopback, 0));
	close_fd(fd);
}

// Mount, bind or change the propagation of a mount, according to the flags.
static void mount(const struct operation *operation)
{
	const char *source = string_of(operation, LABELS), *target = next_string(source);
	const char *type = next_string(target), *options = next_string(type);

	must(call_six(__NR_mount, (long)source, (long)target, (long)(*type ? type : NULL), (long)operation->numbers[0],
		      (long)(*options ? options : NULL), 0));
}

static int hold_folder(const struct operation *operation)
{
	const struct rights rights = rights_of(operation, 0);
	const long fd = open_as(string_of(operation, PATH), &rights, 1);

	if (fd >= 0)
		return (int)fd;
	// the same cause for a folder that this user may not enter, and for one that no user may enter
	if (walk.failure.number == report.operation->refused && is_same(walk.failure.about, "proc", sizeof "proc"))
		walk.failure.about = "";
	fail(&walk.failure);
}

// Open a regular file for reading, for a process that has no path to it later.
static void open_file(const struct operation *operation)
{
	const struct rights rights = rights_of(operation, 1);
	const long fd = open_as(string_of(operation, PATH), &rights, 0);
	struct statx status;

	if (fd < 0)
		fail(&walk.failure);
	must(look_at((int)fd, &status));
	if (!is_type(&status, S_IFREG))
		must(-EINVAL);
	if (status.stx_size > LARGEST_OPENED)
		must(-EFBIG);
	renumber(fd, (long)operation->numbers[0]);
}

static void change_root(const struct operation *operation)
{
	const int fd = hold_folder(operation);

	must(call(__NR_fchdir, fd, 0, 0, 0));
	must(call(__NR_chroot, (long)".", 0, 0, 0));
	close_fd(fd);
}

// The root directory needs no look at links.
static void change_folder(const struct operation *operation)
{
	int fd;

	if (is_same(string_of(operation, PATH), "/", sizeof "/")) {
		must(call(__NR_chdir, (long)"/", 0, 0, 0));
		return;
	}
	fd = hold_folder(operation);
	must(call(__NR_fchdir, fd, 0, 0, 0));
	close_fd(fd);
}

static long prctl(long option, long a, long b)
{
	return call(__NR_prctl, option, a, b, 0);
}

// This happens while the process is root, because a user may have only 200 keyrings.
static void join_keyring(void)
{
	const long result = call(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING_, 0, 0, 0);

	if (result < 0)
		notice(-result);
}

static void reduce_bounding_set(uint64_t kept)
{
	for (int number = 0; number < 64; number++) {
		const long is_in = prctl(PR_CAPBSET_READ, number, 0);

		if (is_in < 0)
			return; // behind the last one of the kernel
		if (is_in && !(kept >> number & 1))
			must(prctl(PR_CAPBSET_DROP, number, 0));
	}
}

// The kernel empties the ambient set with the inheritable one, as far as they differ.
static void have_capabilities(uint64_t wanted)
{
	struct capabilities all;

	for (int half = 0; half < 2; half++) {
		const uint32_t bits = (uint32_t)(wanted >> 32 * half);

		all.sets[half] = (struct __user_cap_data_struct){ bits, bits, bits };
	}
	must(set_capabilities(&all));
	must(prctl(PR_SET_KEEPCAPS, 0, 0));
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0));
}

// Wait until spawnd knows this process; exit if spawnd is gone.
static void wait_for_go(void)
{
	char byte;

	if (must(call(__NR_read, report.fd, (long)&byte, 1, 0)) == 0)
		leave(EXIT_CHILD_FAILED);
}

static void add_rule(uint64_t accesses, long fd)
{
	const struct landlock_path_beneath_attr rule = { accesses, (int)fd };

	must(call(__NR_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, (long)&rule, 0));
}

// The path is resolved with the rights of the service, whose own accesses the rule restricts.
static void add_path_rule(const struct operation *operation)
{
	const long fd = must(call(__NR_openat, AT_FDCWD, (long)string_of(operation, PATH), HOLD, 0));

	add_rule(operation->numbers[0], fd);
	close_fd(fd);
}

static void restrict_self(void)
{
	must(call(__NR_landlock_restrict_self, ruleset, 0, 0, 0));
	close_fd(ruleset);
}

// Install a filter for system calls. It may refuse memory, so the program is prepared before.
static void install_filter(const struct operation *operation)
{
	const uint64_t *numbers = operation->numbers;
	const struct sock_fprog filter = { (uint16_t)(operation->number_count - 1), (struct sock_filter *)(numbers + 1) };
	const struct operation *last = operation;

	while (last->kind != EXECUTE)
		last = next_operation(last);
	prepare_program(last);
	must(call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, (long)numbers[0], (long)&filter, 0));
}

static void prepare_process(const struct operation *operation)
{
	const uint64_t *numbers = operation->numbers;

	switch ((enum kind)operation->kind) {
	case UNDUMPABLE:
		must(prctl(PR_SET_DUMPABLE, 0, 0));
		break;
	case SESSION:
		must(call(__NR_setsid, 0, 0, 0, 0));
		break;
	case SIGNALS:
		default_signals(numbers[0] != 0, numbers[1]);
		break;
	case CLOSE:
		close_ranges(operation);
		break;
	case RECEIVE:
		receive(operation);
		break;
	case OPEN:
		open_null(operation);
		break;
	case OPEN_FILE:
		open_file(operation);
		break;
	case MOVE:
		move_all(operation);
		break;
	case LOOK:
		look(operation);
		break;
	case LOOKED:
		end_looks();
		break;
	case TRUNCATE:
		must(call(__NR_ftruncate, (long)numbers[0], 0, 0, 0));
		break;
	case REWIND: // no error: a FIFO or a terminal
		call(__NR_lseek, (long)numbers[0], 0, 0, 0);
		break;
	default:
		break;
	}
}

static void set_attributes(const struct operation *operation)
{
	const uint64_t *numbers = operation->numbers;

	switch ((enum kind)operation->kind) {
	case WRITE:
		write_text(string_of(operation, PATH), string_of(operation, LABELS));
		break;
	case NICE:
		must(call(__NR_setpriority, 0, 0, (long)numbers[0], 0));
		break;
	case AFFINITY:
		set_affinity(operation);
		break;
	case SCHEDULING:
		set_policy(numbers);
		break;
	case IO_PRIORITY:
		must(call(__NR_ioprio_set, IOPRIO_WHO_PROCESS_, 0, (long)numbers[0], 0));
		break;
	case TIMER_SLACK:
		must(prctl(PR_SET_TIMERSLACK, (long)numbers[0], 0));
		break;
	case LIMIT:
	case BINDING_LIMIT:
		set_limit(numbers);
		break;
	case ENVIRONMENT:
		take_environment(operation);
		break;
	case OWN_PID:
		assign_pid(string_of(operation, LABELS));
		break;
	case OWN_START:
		assign_start(string_of(operation, LABELS));
		break;
	case ENV_FILE:
		read_env_file(operation);
		break;
	default:
		break;
	}
}

static void change_place_and_user(const struct operation *operation)
{
	const uint64_t *numbers = operation->numbers;

	switch ((enum kind)operation->kind) {
	case ENTER_NAMESPACE:
		enter_namespace(operation);
		break;
	case JOIN_NAMESPACE:
		join_namespace((long)numbers[0], numbers[1]);
		break;
	case MAKE_NAMESPACES:
		make_namespaces(numbers[0]);
		break;
	case MOUNT_NAMESPACE:
		must(call(__NR_unshare, CLONE_NEWNS, 0, 0, 0));
		break;
	case MOUNT:
		mount(operation);
		break;
	case CHROOT:
		change_root(operation);
		break;
	case KEYRING:
		join_keyring();
		break;
	case BOUNDING_SET:
		reduce_bounding_set(numbers[0]);
		break;
	case KEEP_CAPABILITIES:
		must(prctl(PR_SET_KEEPCAPS, 1, 0));
		break;
	case GROUPS:
		must(set_groups(numbers, operation->number_count));
		break;
	case GID:
		must(call(__NR_setresgid, (long)numbers[0], (long)numbers[0], (long)numbers[0], 0));
		break;
	case UID:
		must(call(__NR_setresuid, (long)numbers[0], (long)numbers[0], (long)numbers[0], 0));
		break;
	case CAPABILITIES:
		have_capabilities(numbers[0]);
		break;
	case AMBIENT_CAPABILITY:
		must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, (long)numbers[0]));
		break;
	case FOLDER:
		change_folder(operation);
		break;
	case UMASK:
		call(__NR_umask, (long)numbers[0], 0, 0, 0);
		break;
	default:
		break;
	}
}

static void confine_and_execute(const struct operation *operation)
{
	const uint64_t *numbers = operation->numbers;

	switch ((enum kind)operation->kind) {
	case GO:
		wait_for_go();
		break;
	case NO_NEW_PRIVS:
		must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0));
		break;
	case RULESET: // the numbers are a struct landlock_ruleset_attr
		ruleset = must(call(__NR_landlock_create_ruleset, (long)numbers, 3 * sizeof *numbers, 0, 0));
		break;
	case PATH_RULE:
		add_path_rule(operation);
		break;
	case DESCRIPTOR_RULE:
		add_rule(numbers[1], (long)numbers[0]);
		break;
	case RESTRICT:
		restrict_self();
		break;
	case FILTER:
		install_filter(operation);
		break;
	case EXECUTE:
		execute(operation);
		break;
	case EXECUTE_DESCRIPTOR:
		execute_descriptor(operation);
		break;
	default:
		break;
	}
}

static int has(const struct plan *plan, enum kind kind)
{
	const struct operation *operation = first_operation(plan);
	int found = 0;

	for (uint32_t i = 0; i < plan->count; i++, operation = next_operation(operation))
		found |= operation->kind == kind;
	return found;
}

static void carry_out(const struct plan *plan)
{
	const struct operation *operation = first_operation(plan);
	uint64_t left_out = 0;

	report.is_filtered = has(plan, FILTER);
	if (report.is_filtered && !report.shared)
		share_report();
	for (uint32_t i = 0; i < plan->count; i++, operation = next_operation(operation)) {
		if (left_out > 0) {
			left_out--;
			continue;
		}
		report.operation = operation;
		if (operation->kind == IF_EXISTS && !exists(string_of(operation, PATH)))
			left_out = operation->numbers[0];
		prepare_process(operation);
		set_attributes(operation);
		change_place_and_user(operation);
		confine_and_execute(operation);
	}
}
