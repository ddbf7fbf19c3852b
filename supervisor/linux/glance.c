// Reads of /proc entries of other processes with a time limit.
//
// A read of some entries waits while their process executes a program or changes its mappings, which may take forever.
// Only SIGKILL ends the wait. Therefore a child reads the entries. It shares the memory of its
// parent (sharing_child.h), which costs the parent about 0.1 ms, but has an empty descriptor table of its own. Its end
// causes no signal, so this code alone reaps it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "awaited_child.h"

enum {
	ROOM = 65536,
	LONGEST = 16384, // maximal bytes of an answer
	CHILDREN = 4, // each has memory of its own, because SIGKILL may not end a child at once
	END_MS = 1000, // time for the end of a killed child
	TRIES = 3,
	DONT_SYNC = AT_STATX_DONT_SYNC,
	INODE = 0x100, // STATX_INO
	MOUNT_ID = 0x1000, // STATX_MNT_ID, Linux 5.8
};

// Kinds of requests: the character before a path.
enum { CONTENT = 'c', LINK = 'l', OPEN_FILE = 'f' };

// The answer for a link in /proc/PID/fd, followed by its text.
struct open_file {
	uint64_t inode, mount;
	uint32_t mode; // of the link
	uint32_t link; // length, or a negative errno
};

struct look {
	struct child child;
	int pid; // a killed child that has not ended
	const char *requests;
	int count;
	int sizes[ROOM / 8];
	volatile int done, is_full;
	char answers[ROOM];
};

static struct look looks[CHILDREN];

static long read_content(const char *path, char *answer)
{
	long size, fd = call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
	long total = 0;

	if (fd < 0)
		return fd;
	while ((size = call(__NR_read, fd, (long)answer + total, LONGEST - total, 0)) > 0)
		total += size;
	call(__NR_close, fd, 0, 0, 0);
	return size < 0 ? size : total;
}

static long look_at_open_file(const char *path, char *answer)
{
	struct open_file file = { 0 };
	struct statx status;
	char *text = answer + sizeof(file);
	long size;

	size = call(__NR_readlinkat, AT_FDCWD, (long)path, (long)text, LONGEST - sizeof(file));
	if (size < 0 && size != -ENAMETOOLONG)
		return size;
	file.link = (uint32_t)(int32_t)size;
	// `call` supports fewer arguments; the parent ignores the shared errno
	if (syscall(__NR_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | DONT_SYNC, STATX_MODE, &status) != 0)
		return -ENOENT;
	file.mode = status.stx_mode;
	if (syscall(__NR_statx, AT_FDCWD, path, DONT_SYNC, INODE | MOUNT_ID, &status) != 0)
		return -ENOENT;
	file.inode = status.stx_ino;
	file.mount = status.stx_mask & MOUNT_ID ? status.stx_mnt_id : 0;
	memcpy(answer, &file, sizeof(file));
	return (long)sizeof(file) + (size > 0 ? size : 0);
}

static long answer(const char *request, char *data)
{
	switch (request[0]) {
	case CONTENT:
		return read_content(request + 1, data);
	case LINK:
		return call(__NR_readlinkat, AT_FDCWD, (long)(request + 1), (long)data, LONGEST);
	case OPEN_FILE:
		return look_at_open_file(request + 1, data);
	}
	return -EINVAL;
}

static int look_at_all(void *argument)
{
	struct look *look = argument;
	const char *request = look->requests;
	char *data = look->answers;

	call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	if (keep_only(NULL, 0) < 0)
		leave(0);
	while (look->done < look->count) {
		long size;

		if (look->answers + ROOM - data < LONGEST) {
			look->is_full = 1;
			break;
		}
		size = answer(request, data);
		look->sizes[look->done] = (int)size;
		data += size > 0 ? size : 0;
		while (*request++)
			;
		look->done++;
	}
	leave(0);
}

// Wait until the child has ended, or kill it at the end of the time limit. It is reaped, unless SIGKILL fails. Returns
// whether it ended by itself, or was killed by somebody else.
static int finish(struct look *look, int pid, int milliseconds)
{
	int slept = 0, seen = 0, in_time = 1;

	while (!wait_for(&look->child.in_memory, milliseconds)) {
		slept = look->done == seen ? slept + milliseconds : 0;
		seen = look->done;
		if (slept && (waits(pid) || slept >= SLOWEST_MS)) {
			kill(pid, SIGKILL);
			if (!wait_for(&look->child.in_memory, END_MS))
				look->pid = pid;
			in_time = 0;
			break;
		}
	}
	while (!look->pid && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	return in_time;
}

static struct look *free_look(void)
{
	for (int i = 0; i < CHILDREN; i++) {
		struct look *look = &looks[i];

		if (look->pid && !look->child.in_memory && waitpid(look->pid, NULL, __WALL | WNOHANG) != 0)
			look->pid = 0;
		if (!look->pid)
			return look;
	}
	return NULL;
}

// Answer requests, each a character and a path terminated by NUL. Returns the number of answers, or a negative errno if
// no child can be started. `sizes` gets the length of each answer, or a negative errno; -ETIMEDOUT for a last request
// for which the child has waited too long. `answers` gets the concatenated answers, and has room for ROOM bytes.
int glance(const char *requests, int count, int *sizes, char *answers, int milliseconds)
{
	struct look *look = free_look();
	size_t length = 0;
	int pid, done, in_time, tries = 0;

	if (!look)
		return -EBUSY;
	look->requests = requests;
	look->count = count < ROOM / 8 ? count : ROOM / 8;
	do {
		look->done = look->is_full = 0;
		pid = launch(&look->child, look_at_all, CLONE_FILES | CLONE_FS, look);
		if (pid < 0)
			return pid;
		in_time = finish(look, pid, milliseconds);
		// killed by somebody else: what it has not looked at would count as hidden
	} while (in_time && look->done < look->count && !look->is_full && ++tries < TRIES);
	done = look->done;
	if (done < look->count && !look->is_full)
		look->sizes[done++] = -ETIMEDOUT;
	for (int i = 0; i < done; i++)
		length += look->sizes[i] > 0 ? (size_t)look->sizes[i] : 0;
	memcpy(sizes, look->sizes, (size_t)done * sizeof(*sizes));
	memcpy(answers, look->answers, length);
	return done;
}
