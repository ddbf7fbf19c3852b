// Starting `launch` from spawnd, at a cost that does not grow with spawnd's memory and descriptors.
//
// The child shares spawnd's memory, like after vfork(2), and spawnd waits until the child has executed `launch`. So the
// child makes no call that may block: no close, because FUSE asks its server at the close of a file, and no access to a
// path. Therefore the low descriptors of spawnd are open in `launch`, which closes them; higher ones are not in its
// table.
//
// Sockets arrive on the numbers of a reserved block. The close of a socket that is open elsewhere does not block, so
// spawnd can clear the block again. Other descriptors arrive in a message on the socket for the report of `launch`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sharing_child.h"

enum {
	COPIED_TOGETHER = 64, // the kernel copies a table in parts of so many
	LEAST = 40, // numbers of the block, of which two are for the plan and the socket of the errors
	BLOCK = LEAST + COPIED_TOGETHER - 1,
	MOST_OF_A_MESSAGE = 253, // SCM_MAX_FD
	LAST_CAPABILITY = 63,
	NO_PROGRAM = 0x10000, // an error of the exec
};

struct launch {
	int program, plan, errors; // in the child's table
	int highest; // descriptor that the child has, or may have
	int copies; // the whole table
	volatile long error;
};

static _Alignas(16) char stack[STACK_SIZE];

static struct {
	int count, unused; // `unused` holds the numbers of the block
	int numbers[BLOCK];
} block;

// Move sockets to the front, and return how many there are. These calls never block, unlike fstat(2).
unsigned int find_sockets(int *fds, unsigned int count)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < count; i++) {
		const int fd = fds[i];
		int type;
		socklen_t size = sizeof type;

		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0) {
			fds[i] = fds[found];
			fds[found++] = fd;
		}
	}
	return found;
}

// Reserve low numbers from 3 up. Stores the numbers, and returns how many there are. The block has all numbers that are
// free in those parts of the table that are copied. So no descriptor of a service comes to be there, which `launch`
// would have to close.
int reserve_block(int unused, int *numbers)
{
	block.unused = unused;
	block.count = 0;
	for (int number = 0; block.count < LEAST || number % COPIED_TOGETHER != COPIED_TOGETHER - 1;) {
		number = fcntl(unused, F_DUPFD_CLOEXEC, 3);
		if (number < 0)
			break;
		if (block.count >= LEAST && number / COPIED_TOGETHER > block.numbers[LEAST - 1] / COPIED_TOGETHER) {
			close(number);
			break;
		}
		block.numbers[block.count] = numbers[block.count] = number;
		block.count++;
	}
	return block.count;
}

// For an ordinary user, only ambient capabilities survive an exec. `launch` gives them up again.
static void pass_on_capabilities(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	uint64_t permitted;

	if (call(__NR_geteuid, 0, 0, 0, 0) == 0 || call(__NR_capget, (long)&header, (long)sets, 0, 0) < 0)
		return;
	permitted = sets[0].permitted | (uint64_t)sets[1].permitted << 32;
	if (!permitted)
		return;
	sets[0].inheritable = sets[0].permitted;
	sets[1].inheritable = sets[1].permitted;
	call(__NR_capset, (long)&header, (long)sets, 0, 0);
	for (int number = 0; number <= LAST_CAPABILITY; number++)
		if (permitted >> number & 1)
			call(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0);
}

static void write_number(char *to, int number)
{
	char digits[12];
	int length = 0;

	do
		digits[length++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	while (length > 0)
		*to++ = digits[--length];
	*to = '\0';
}

// Clear the close-on-exec flags, because a close may block. Unless the table is a copy, they are right in the block.
static void keep_open(const struct launch *launch)
{
	int next = launch->copies ? block.count : 0;

	for (int fd = 0; fd <= launch->highest; fd++)
		if (next < block.count && fd == block.numbers[next])
			next++;
		else
			call(__NR_fcntl, fd, F_SETFD, 0, 0);
}

static int become(void *argument)
{
	struct launch *launch = argument;
	static char plan[12], errors[12];
	const char *const words[] = { "launch", plan, errors, NULL }, *const nothing[] = { NULL };

	write_number(plan, launch->plan);
	write_number(errors, launch->errors);
	if (!launch->copies)
		launch->error = -call(__NR_close_range, launch->highest + 1, UINT32_MAX, CLOSE_RANGE_UNSHARE, 0);
	if (launch->error == 0) {
		keep_open(launch);
		pass_on_capabilities();
		launch->error = -call_six(__NR_execveat, launch->program, (long)"", (long)words, (long)nothing, AT_EMPTY_PATH,
					  0);
		launch->error |= NO_PROGRAM;
	}
	leave(1);
}

static int make_plan(const void *plan, size_t size)
{
	// by its number: the C library has it since 2.27, and wheels are for older ones
	const int fd = (int)syscall(SYS_memfd_create, "plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error;

	if (fd < 0)
		return -errno;
	if (write(fd, plan, size) == (ssize_t)size &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static int send_all(int socket, const int *fds, unsigned int count)
{
	_Alignas(struct cmsghdr) static char control[CMSG_SPACE(MOST_OF_A_MESSAGE * sizeof(int))];

	while (count > 0) {
		const unsigned int now = count < MOST_OF_A_MESSAGE ? count : MOST_OF_A_MESSAGE;
		struct iovec byte = { "d", 1 };
		struct msghdr header = {
			.msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(now * sizeof(int)),
		};
		struct cmsghdr *part = CMSG_FIRSTHDR(&header);

		part->cmsg_level = SOL_SOCKET;
		part->cmsg_type = SCM_RIGHTS;
		part->cmsg_len = CMSG_LEN(now * sizeof(int));
		memcpy(CMSG_DATA(part), fds, now * sizeof(int));
		if (sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return -errno;
		fds += now;
		count -= now;
	}
	return 0;
}

static int run(struct launch *launch)
{
	const int flags = SIGCHLD | CLONE_VFORK | (launch->copies ? 0 : CLONE_FILES);
	const int pid = start(become, stack, flags, launch, NULL);

	if (pid < 0 || launch->error == 0)
		return pid;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return -(int)launch->error;
}

// The exec of `launch` keeps these open.
static int fill_block(const int *fds, int count)
{
	for (int i = 0; i < count; i++)
		if (dup3(fds[i], block.numbers[i], 0) < 0)
			return -errno;
	return 0;
}

// Start `program`, which is `launch`, with a plan. `errors` is its end of the pair of sockets, `ours` the other one.
// `fds` are `count` sockets that it gets on the numbers of the block from the third on, and then `sent_count`
// descriptors that are sent in messages. If `highest` is not -1, it gets a copy of spawnd's table, in which `highest`
// is the highest number. Returns the pid, or a negative errno, with NO_PROGRAM if the program could not be executed.
int start_launch(int program, const void *plan, size_t size, int errors, int ours, const int *fds, unsigned int count,
		 unsigned int sent_count, int highest)
{
	struct launch launch = { .program = program, .errors = errors, .highest = highest, .copies = highest >= 0 };
	int moved[BLOCK], result, used = 0;

	if (!launch.copies && (int)count + 2 > block.count)
		return -EINVAL;
	launch.plan = make_plan(plan, size);
	if (launch.plan < 0)
		return launch.plan;
	result = send_all(ours, fds + count, sent_count);
	if (result == 0 && launch.copies) {
		if (launch.plan > launch.highest)
			launch.highest = launch.plan;
		result = run(&launch);
	} else if (result == 0) {
		moved[used++] = launch.plan;
		moved[used++] = errors;
		while (count-- > 0)
			moved[used++] = *fds++;
		result = fill_block(moved, used);
		close(launch.plan);
		launch.plan = block.numbers[0];
		launch.errors = block.numbers[1];
		launch.highest = block.numbers[block.count - 1] | (COPIED_TOGETHER - 1);
		if (result == 0)
			result = run(&launch);
		for (int i = 0; i < used; i++)
			dup3(block.unused, block.numbers[i], O_CLOEXEC);
		return result;
	}
	close(launch.plan);
	return result;
}
