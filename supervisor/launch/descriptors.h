// The descriptors of a service: their arrival, their move to the right numbers, and the check of their paths.
#pragma once

#include <linux/fcntl.h>
#include <linux/memfd.h>
#include <linux/stat.h>
#include <linux/un.h>

#include "report.h"

enum {
	AF_UNIX_ = 1,
	SOCK_DGRAM_ = 2,
	SOL_SOCKET_ = 1,
	SCM_RIGHTS_ = 1,
	MSG_CMSG_CLOEXEC_ = 0x40000000,
	RLIMIT_NOFILE_ = 7,
	MOST_OF_A_MESSAGE = 253,
};

struct message_part { // struct cmsghdr
	uint64_t size;
	int level, type;
	int fds[MOST_OF_A_MESSAGE];
};

struct block { // struct iovec
	void *begin;
	uint64_t size;
};

struct message { // struct msghdr
	void *name;
	uint32_t name_size;
	struct block *blocks;
	uint64_t block_count;
	void *control;
	uint64_t control_size;
	uint32_t flags;
};

static void close_ranges(const struct operation *operation)
{
	for (uint32_t i = 0; i < operation->number_count; i += 2)
		must(call(__NR_close_range, (long)operation->numbers[i], (long)operation->numbers[i + 1], 0, 0));
}

// Share memory for the report with spawnd, and tell it by a byte and then another one with the descriptor. Nobody can
// shrink the memory or map it for writing, and the exec unmaps it. It is made before limits are set, such as `fsize`.
static void share_report(void)
{
	const long fd = must(call(__NR_memfd_create, (long)"report", MFD_CLOEXEC | MFD_ALLOW_SEALING, 0, 0));
	const long seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
	struct message_part part = { 16 + sizeof(int), SOL_SOCKET_, SCM_RIGHTS_, { (int)fd } };
	struct block block = { " ", 1 };
	const struct message message = { NULL, 0, &block, 1, &part, 24, 0 };
	long shared;

	must(call(__NR_ftruncate, fd, SHARED_REPORT, 0, 0));
	shared = must(call_six(__NR_mmap, 0, SHARED_REPORT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	must(call(__NR_fcntl, fd, F_ADD_SEALS, seals, 0));
	must(call(__NR_write, report.fd, (long)" ", 1, 0));
	must(call(__NR_sendmsg, report.fd, (long)&message, 0, 0));
	call(__NR_close, fd, 0, 0, 0);
	report.shared = (char *)shared;
	report.shared_size = SHARED_REPORT;
}

// Descriptors get the lowest free numbers, as computed by the plan.
static void receive(const struct operation *operation)
{
	static struct message_part part APART;
	uint32_t done = 0;

	while (done < operation->number_count) {
		char byte;
		struct block block = { &byte, 1 };
		struct message message = { NULL, 0, &block, 1, &part, sizeof part, 0 };
		uint32_t count;

		if (must(call(__NR_recvmsg, report.fd, (long)&message, MSG_CMSG_CLOEXEC_, 0)) == 0)
			leave(EXIT_CHILD_FAILED); // no spawnd is left
		count = message.control_size < 16 ? 0 : (uint32_t)(part.size - 16) / sizeof(int);
		if (count == 0 || count > operation->number_count - done)
			must(-EBADF);
		for (uint32_t i = 0; i < count; i++)
			if ((uint64_t)part.fds[i] != operation->numbers[done + i])
				must(-EBADF);
		done += count;
	}
}

static void renumber(long fd, long number)
{
	if (fd == number)
		return;
	must(call(__NR_dup3, fd, number, O_CLOEXEC, 0));
	call(__NR_close, fd, 0, 0, 0);
}

static void open_null(const struct operation *operation)
{
	const long fd =
		must(call(__NR_openat, AT_FDCWD, (long)string_of(operation, PATH), O_RDWR | O_CLOEXEC | O_NOCTTY, 0));

	renumber(fd, (long)operation->numbers[0]);
}

// "place stdin", …: not an operation for each descriptor, because a service may have thousands.
static _Noreturn void fail_to_place(uint64_t target, long number)
{
	static const char *const names[] = { "stdin", "stdout", "stderr" };
	const char *step = string_of(report.operation, STEP);
	static char text[64];
	size_t length = length_of(step);
	uint64_t limit[2] = { UINT64_MAX, 0 };

	if (length > 32)
		length = 32;
	copy(text, step, length);
	text[length++] = ' ';
	if (target < 3)
		copy(text + length, names[target], length_of(names[target]) + 1);
	else {
		copy(text + length, "descriptor ", 11);
		text[length + 11 + write_digits(text + length + 11, target, 10, 1)] = '\0';
	}
	call(__NR_prlimit64, 0, RLIMIT_NOFILE_, 0, (long)limit);
	if (number == EBADF && target >= limit[0]) // dup2(2) reports EBADF in place of EMFILE
		number = EMFILE;
	fail_step(text, &(struct failure){ number, "", "", 0, 0 });
}

// The last pair is the socket, if there is one: the only descriptor that an exec closes.
static void move_all(const struct operation *operation)
{
	for (uint32_t i = 0; i < operation->number_count; i += 2) {
		const uint64_t from = operation->numbers[i], to = operation->numbers[i + 1];
		const long result = from == to ? call(__NR_fcntl, (long)to, F_SETFD, 0, 0) :
						 call(__NR_dup3, (long)from, (long)to, 0, 0);

		if (result < 0)
			fail_to_place(to, -result);
		if (from == (uint64_t)report.fd)
			report.fd = (int)to;
	}
	if (report.fd >= 0)
		must(call(__NR_fcntl, report.fd, F_SETFD, FD_CLOEXEC, 0));
}

// Whether a process has bound the socket at the path, or this is unknown: `is_bound` of
// `supervisor/process/sockets.py`.
static int is_bound(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX_ };
	const size_t length = length_of(path);
	long probe, result;

	if (length >= sizeof address.sun_path)
		return 1;
	copy(address.sun_path, path, length + 1);
	probe = must(call(__NR_socket, AF_UNIX_, SOCK_DGRAM_ | O_NONBLOCK | O_CLOEXEC, 0, 0));
	result = call(__NR_connect, probe, (long)&address, sizeof address, 0);
	call(__NR_close, probe, 0, 0, 0);
	return result != -ECONNREFUSED && result != -ENOENT;
}

static int is_folder(const char *path)
{
	struct statx status;

	return call_six(__NR_statx, AT_FDCWD, (long)path, 0, STATX_TYPE, (long)&status, 0) == 0 &&
	       (status.stx_mode & S_IFMT) == S_IFDIR;
}

// The state of a path, like `Sight` in `supervisor/process/paths.py`; NULL if the opened file is still there.
static const char *sight_of(const struct operation *operation)
{
	const char *path = string_of(operation, PATH), *folder = string_of(operation, LABELS);
	const uint64_t *numbers = operation->numbers;
	const int is_socket = numbers[4] != 0, flags = is_socket ? AT_SYMLINK_NOFOLLOW : 0;
	struct statx found;
	const long result =
		call_six(__NR_statx, AT_FDCWD, (long)path, flags, STATX_TYPE | STATX_INO, (long)&found, 0);

	if (result == -ENOENT || result == -ENOTDIR)
		return is_socket && !is_folder(folder) ? "deleted with its directory" : "deleted";
	if (result < 0)
		return NULL;
	if (found.stx_dev_major == numbers[1] && found.stx_dev_minor == numbers[2] && found.stx_ino == numbers[3])
		return NULL;
	return is_socket && ((found.stx_mode & S_IFMT) != S_IFSOCK || is_bound(path)) ? "taken" : "replaced";
}

// The report of what has changed is begun with the first of them; its cause is itself JSON.
static void look(const struct operation *operation)
{
	const char *sight = sight_of(operation);
	char slot[24];

	if (!sight)
		return;
	if (!report.is_begun) {
		put("{");
		put_text("step", string_of(operation, STEP));
		put("\"path\": \"\", \"errno\": 0, \"cause\": \"{");
	} else {
		put(", ");
	}
	report.is_begun = 1;
	slot[write_digits(slot, operation->numbers[0], 10, 1)] = '\0';
	put("\\\"");
	put(slot);
	put("\\\": \\\"");
	put(sight);
	put("\\\"");
}

static void end_looks(void)
{
	if (!report.is_begun)
		return;
	put("}\"}");
	flush();
	leave(EXIT_CHILD_FAILED);
}
