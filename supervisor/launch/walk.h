// Resolution of a path step by step, as far as root can trust it: see `Place` of `supervisor/linux/place.py` and
// `open_as` of `supervisor/process/files.py`. This process has a single thread, so it changes its own rights.
#pragma once

#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <asm/statfs.h>

#include "report.h"

enum {
	MAX_LINKS = 40,
	HOLD = O_PATH | O_CLOEXEC,
	ALWAYS = O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
	GROUP_WRITES = 020,
	ALL_WRITE = 02,
	OTHERS_WRITE = GROUP_WRITES | ALL_WRITE,
	LONGEST_NAME = 2 * PATH_MAX,
	MOST_GROUPS = 4096, // of ours, which are put back
	UNSEARCHABLE = 1, // a folder, for the report
};

struct rights {
	int are_given;
	uint32_t uid, gid, count;
	const uint64_t *gids;
};

static struct {
	int folder; // that is held, or -1
	int follows_all, links_left;
	const struct rights *rights; // NULL: the owners of files do not matter
	struct failure failure; // of the last step
	int is_untrusted; // whether it was a link that a user can have set
	char rest[LONGEST_NAME]; // the path from here
	char name[PATH_MAX]; // of the step
	char place[LONGEST_NAME]; // that the failure names
} walk APART;

static struct rights rights_of(const struct operation *operation, unsigned int first)
{
	const uint64_t *numbers = operation->numbers + first;
	const uint32_t count = operation->number_count - first - 3;

	return (struct rights){ numbers[0] != 0, (uint32_t)numbers[1], (uint32_t)numbers[2], count, numbers + 3 };
}

static long fails(long number)
{
	walk.failure = (struct failure){ -number, "", "", 0, 0 };
	return number;
}

// Write the kernel's path of an open file, of PATH_MAX bytes at most, without a NUL. Returns its size or a negative errno.
static long read_path(int fd, char *path)
{
	char link[32] = "/proc/self/fd/";
	const size_t length = write_digits(link + 14, (uint64_t)fd, 10, 1);

	link[14 + length] = '\0';
	return call(__NR_readlinkat, AT_FDCWD, (long)link, (long)path, PATH_MAX);
}

// Fail to find a name in the present folder: after EACCES, this process may not search it.
static long fails_to_find(long number)
{
	long size;

	fails(number);
	if (number != -EACCES)
		return number;
	size = read_path(walk.folder, walk.place);
	walk.failure = (struct failure){ EACCES, "forbidden", walk.place, size > 0 ? (size_t)size : 0, UNSEARCHABLE };
	return number;
}

// Return the path of `name` at the present place, or only the name if the folder has no path.
static void tell_place(const char *name)
{
	const size_t length = length_of(name);
	long size = read_path(walk.folder, walk.place);

	if (size > 0) {
		if (walk.place[size - 1] != '/')
			walk.place[size++] = '/';
		copy(walk.place + size, name, length);
		walk.failure.name = walk.place;
		walk.failure.name_size = (size_t)size + length;
	} else {
		walk.failure.name = name;
		walk.failure.name_size = length;
	}
}

static long refuse(long number, const char *about, const char *name, int is_untrusted)
{
	walk.failure = (struct failure){ number, about, "", 0, 0 };
	walk.is_untrusted = is_untrusted;
	tell_place(name);
	return -number;
}

static long look_at(int fd, struct statx *status)
{
	const unsigned int mask = STATX_BASIC_STATS;

	return call_six(__NR_statx, fd, (long)"", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, mask, (long)status, 0);
}

static int is_type(const struct statx *status, unsigned int type)
{
	return (status->stx_mode & S_IFMT) == type;
}

// Refuse a file that another user can have created in a folder that all users may write to.
static long check_owner(const struct statx *status, const char *name)
{
	struct statx folder;
	long result;

	if (!walk.rights || status->stx_uid == 0 || (long)status->stx_uid == call(__NR_geteuid, 0, 0, 0, 0) ||
	    (walk.rights->are_given && status->stx_uid == walk.rights->uid))
		return 0;
	if ((result = look_at(walk.folder, &folder)) < 0)
		return fails(result);
	if (folder.stx_uid == status->stx_uid)
		return 0;
	if (!(folder.stx_mode & ALL_WRITE) && !(folder.stx_mode & GROUP_WRITES && folder.stx_mode & S_ISVTX))
		return 0;
	result = refuse(EACCES, "foreign", name, 0);
	walk.failure.value = status->stx_uid;
	return result;
}

static void close_fd(long fd)
{
	call(__NR_close, fd, 0, 0, 0);
}

static long move_to(const char *name, int nofollow)
{
	const long fd = call(__NR_openat, walk.folder, (long)name, HOLD | O_DIRECTORY | nofollow, 0);
	const int is_here = !(name[0] == '/' && !name[1]) && !(name[0] == '.' && name[1] == '.' && !name[2]);
	struct statx status;
	long result;

	if (fd < 0)
		return nofollow ? fails_to_find(fd) : fails(fd); // the kernel follows a link into /proc
	if (is_here) {
		result = look_at((int)fd, &status);
		result = result < 0 ? fails(result) : check_owner(&status, name);
		if (result < 0) {
			close_fd(fd);
			return result;
		}
	}
	close_fd(walk.folder);
	walk.folder = (int)fd;
	return 0;
}

static int is_proc(int fd)
{
	struct statfs64 found;

	return call(__NR_fstatfs, fd, (long)&found, 0, 0) == 0 && found.f_type == PROC_SUPER_MAGIC;
}

static int can_be_trusted(const struct statx *link, const struct statx *folder)
{
	const int is_replaceable = folder->stx_mode & OTHERS_WRITE && !(folder->stx_mode & S_ISVTX);

	return walk.follows_all || (link->stx_uid == 0 && folder->stx_uid == 0 && !is_replaceable);
}

static long read_trusted(int link, const char *name, char *target)
{
	struct statx status, folder;
	long result;

	if ((result = look_at(link, &status)) < 0)
		return fails(result);
	if (!is_type(&status, S_IFLNK))
		return fails(-ENOTDIR);
	if (--walk.links_left < 0)
		return fails(-ELOOP);
	if ((result = check_owner(&status, name)) < 0)
		return result;
	if ((result = look_at(walk.folder, &folder)) < 0)
		return fails(result);
	if (!can_be_trusted(&status, &folder))
		return refuse(ELOOP, "link", name, 1);
	if (is_proc(link))
		return 0;
	result = call(__NR_readlinkat, link, (long)"", (long)target, PATH_MAX);
	return result <= 0 ? fails(result ? result : -ENOENT) : result;
}

// Read the target of the link `name`, without a NUL. Returns its size, 0 for a link that only the kernel can follow.
static long follow(const char *name, char *target)
{
	const long link = call(__NR_openat, walk.folder, (long)name, HOLD | O_NOFOLLOW, 0);
	long size;

	if (link < 0)
		return fails_to_find(link);
	size = read_trusted((int)link, name, target);
	close_fd(link);
	return size;
}

// Prepend `size` bytes of a link's target to the rest of the path, or the name if `size` is 0.
static long put_before(const char *begin, size_t size)
{
	const size_t length = length_of(walk.rest) + 1;

	if (size + 1 + length > sizeof walk.rest)
		return fails(-ENAMETOOLONG);
	copy(walk.rest + size + 1, walk.rest, length);
	copy(walk.rest, begin, size);
	walk.rest[size] = '/';
	return 0;
}

static long step_into(void)
{
	char target[PATH_MAX];
	long result = move_to(walk.name, O_NOFOLLOW), size;

	if (result != -ENOTDIR)
		return result;
	size = follow(walk.name, target);
	if (size < 0) {
		if (walk.is_untrusted)
			put_before(walk.name, length_of(walk.name));
		return size;
	}
	if (size == 0)
		return move_to(walk.name, 0);
	if (target[0] == '/' && (result = move_to("/", O_NOFOLLOW)) < 0)
		return result;
	return put_before(target, (size_t)size);
}

// Go to the folder of the path in `walk.rest`, where only the last name remains.
static long enter(void)
{
	long result;
	size_t length;

	if (walk.rest[0] == '/' && (result = move_to("/", O_NOFOLLOW)) < 0)
		return result;
	for (;;) {
		for (length = 0; walk.rest[length] && walk.rest[length] != '/';)
			length++;
		if (length >= sizeof walk.name)
			return fails(-ENAMETOOLONG);
		copy(walk.name, walk.rest, length);
		walk.name[length] = '\0';
		if (!walk.rest[length])
			break;
		copy(walk.rest, walk.rest + length + 1, length_of(walk.rest + length));
		if (length > 0 && (result = step_into()) < 0)
			return result;
	}
	if (!length)
		walk.name[0] = '.', walk.name[1] = '\0';
	return 0;
}

// Open the file at the end of the path with O_PATH, after following links.
static long hold(void)
{
	char target[PATH_MAX];
	struct statx status;
	long fd, result;

	for (;;) {
		fd = call(__NR_openat, walk.folder, (long)walk.name, HOLD | O_NOFOLLOW, 0);
		if (fd < 0)
			return fails_to_find(fd);
		result = look_at((int)fd, &status);
		result = result < 0 ? fails(result) : check_owner(&status, walk.name);
		if (result == 0 && !is_type(&status, S_IFLNK))
			return fd;
		close_fd(fd);
		if (result < 0)
			return result;
		result = follow(walk.name, target);
		if (result == 0) {
			fd = call(__NR_openat, walk.folder, (long)walk.name, HOLD, 0);
			return fd < 0 ? fails(fd) : fd;
		}
		if (result > 0) {
			copy(walk.rest, target, (size_t)result);
			walk.rest[result] = '\0';
			result = enter();
		}
		if (result < 0)
			return result;
	}
}

// Open the held file for reading.
static long open_held(int held)
{
	char path[32] = "/proc/self/fd/";
	const size_t length = write_digits(path + 14, (uint64_t)held, 10, 1);
	long fd;

	path[14 + length] = '\0';
	fd = call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | ALWAYS, 0);
	close_fd(held);
	return fd < 0 ? fails(fd) : fd;
}

static long check_hard_links(int held)
{
	struct statx status, folder;
	long result;

	if ((result = look_at(held, &status)) < 0 || (result = look_at(walk.folder, &folder)) < 0)
		return fails(result);
	if (walk.follows_all || is_type(&status, S_IFDIR) || status.stx_nlink == 1)
		return 0;
	if ((folder.stx_uid == 0 || status.stx_uid == folder.stx_uid) &&
	    (folder.stx_uid != 0 || !(folder.stx_mode & OTHERS_WRITE)))
		return 0;
	copy(walk.rest, walk.name, length_of(walk.name) + 1);
	return refuse(EPERM, "hard link", walk.name, 1);
}

static long open_found(int is_folder)
{
	const long held = hold();
	long result;

	if (held < 0 || is_folder)
		return held;
	if ((result = check_hard_links((int)held)) < 0) {
		close_fd(held);
		return result;
	}
	return open_held((int)held);
}
