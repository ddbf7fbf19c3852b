// Cgroups of sessions: one for each, in a folder that belongs to the user of the service and that no session reaches.
//
// The cgroup N of a session is made before its process, which begins in it, and removed when that has ended. Processes
// that are still in it are killed. Limits of a session are those of N, and then its process is in `N/session`: it could
// change the files of its own cgroup, if it makes itself a namespace for it. `docs/design/accept.md` has the details.
#pragma once

#include "lines.h"

enum {
	MOST_CGROUPS = 1 << 16, // numbers, from 1 on
	LONGEST_CGROUP = 512,
	AT_REMOVEDIR_ = 0x200,
	DT_DIR_ = 4,
};

#define SOON (SECOND / 100) // until the first other try to remove a cgroup

// Cgroups whose session has ended, but that cannot be removed yet, as bits.
static struct {
	uint64_t numbers[MOST_CGROUPS / 64];
	uint32_t count, last; // `last` is the number that was given to a session most recently
	int64_t again, pause; // the time of the next try, and the time until the one after it
} ended_cgroups APART;

struct directory_entry { // linux_dirent64
	uint64_t inode, offset;
	uint16_t size;
	uint8_t type;
	char name[];
};

static int has_cgroups(void)
{
	return options->sessions >= 0;
}

static int has_limits(void)
{
	return options->limits.count > 0;
}

// Return the path of a file of a cgroup in the folder, or of the cgroup itself for "". It is valid until the next call.
static const char *cgroup_path(uint32_t number, const char *file)
{
	static char path[LONGEST_CGROUP] APART;
	size_t size = write_digits(path, number, 10, 1);
	const size_t length = length_of(file);

	if (length > 0 && size + length + 2 <= sizeof path) {
		path[size++] = '/';
		copy(path + size, file, length);
		size += length;
	}
	path[size] = '\0';
	return path;
}

static long write_cgroup_file(uint32_t number, const char *file, const char *text)
{
	const long fd = call(__NR_openat, (long)options->sessions, (long)cgroup_path(number, file), O_WRONLY | O_CLOEXEC, 0);
	long result = fd;

	if (fd >= 0) {
		result = call(__NR_write, fd, (long)text, (long)length_of(text), 0);
		close_fd(fd);
	}
	return result < 0 ? result : 0;
}

static long make_folder(uint32_t number, const char *name)
{
	return call(__NR_mkdirat, (long)options->sessions, (long)cgroup_path(number, name), 0755, 0);
}

// Make a cgroup with a free number. Returns the number, or a negative errno.
static long take_cgroup(void)
{
	for (uint32_t tries = 0; tries < MOST_CGROUPS; tries++) {
		const uint32_t number = ended_cgroups.last % (MOST_CGROUPS - 1) + 1;
		const long result = make_folder(number, "");

		ended_cgroups.last = number;
		if (result != -EEXIST)
			return result < 0 ? result : (long)number;
	}
	return -EEXIST;
}

// Limit a cgroup, and make the one that its process begins in. Returns 0 or a negative errno.
static long limit_cgroup(uint32_t number)
{
	const char *file = items(options->limits), *end = file + options->limits.count;

	while (file < end) {
		const char *text = next_string(file);
		const long result = write_cgroup_file(number, file, text);

		if (result < 0)
			return result;
		file = next_string(text);
	}
	return make_folder(number, "session");
}

static long open_cgroup(uint32_t number)
{
	const char *path = cgroup_path(number, has_limits() ? "session" : "");

	return call(__NR_openat, (long)options->sessions, (long)path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
}

static long remove_folder(uint32_t number, const char *name)
{
	return call(__NR_unlinkat, (long)options->sessions, (long)cgroup_path(number, name), AT_REMOVEDIR_, 0);
}

// Return whether a cgroup is gone by now.
static int remove_cgroup(uint32_t number)
{
	const long result = remove_folder(number, "");

	return result == 0 || result == -ENOENT;
}

// Read some entries of a directory, and call `found` for each cgroup among them. Returns whether there were any entries.
static int read_cgroups(long folder, void (*found)(long folder, const char *name))
{
	static _Alignas(8) char buffer[4096] APART;
	const long size = call(__NR_getdents64, folder, (long)buffer, sizeof buffer, 0);

	for (long at = 0; at < size; at += ((struct directory_entry *)(buffer + at))->size) {
		const struct directory_entry *entry = (struct directory_entry *)(buffer + at);

		if (entry->type == DT_DIR_ && entry->name[0] != '.')
			found(folder, entry->name);
	}
	return size > 0;
}

static void remove_below(long folder, const char *name)
{
	call(__NR_unlinkat, folder, (long)name, AT_REMOVEDIR_, 0);
}

// Remove a cgroup that may have some below it: that of its process, where an acceptor has limited it, or those that a
// session has made while limits were new.
static int remove_whole_cgroup(uint32_t number)
{
	const long flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	const long folder = call(__NR_openat, (long)options->sessions, (long)cgroup_path(number, ""), flags, 0);

	if (folder >= 0) {
		while (read_cgroups(folder, remove_below))
			;
		close_fd((int)folder);
	}
	return remove_cgroup(number);
}

static void mark_ended(uint32_t number, int is_ended)
{
	uint64_t *word = &ended_cgroups.numbers[number / 64];
	const uint64_t bit = 1ull << number % 64;

	if (is_ended != !!(*word & bit))
		ended_cgroups.count += is_ended ? 1 : -1u;
	*word = is_ended ? *word | bit : *word & ~bit;
}

static void try_again(int64_t at)
{
	if (ended_cgroups.count == 0 || at < ended_cgroups.again)
		ended_cgroups.again = at;
	ended_cgroups.pause = SOON;
}

// Remove the cgroup of a session that has ended, or else kill what is in it, and remove it later.
static void leave_cgroup(uint32_t number, int64_t now)
{
	if (number == 0 || number >= MOST_CGROUPS || !has_cgroups())
		return;
	if (has_limits())
		remove_folder(number, "session");
	if (remove_cgroup(number))
		return;
	write_cgroup_file(number, "cgroup.kill", "1");
	try_again(now + SOON);
	mark_ended(number, 1);
}

// Try again, after a time that grows up to a second: a process that does not end costs hardly anything. Each process
// that has come into a cgroup meanwhile is killed as well.
static void settle_cgroups(int64_t now)
{
	if (ended_cgroups.count == 0 || now < ended_cgroups.again)
		return;
	for (uint32_t number = 0; number < MOST_CGROUPS; number++) {
		if (!ended_cgroups.numbers[number / 64]) {
			number |= 63;
			continue;
		}
		if (!(ended_cgroups.numbers[number / 64] >> number % 64 & 1))
			continue;
		if (remove_whole_cgroup(number))
			mark_ended(number, 0);
		else
			write_cgroup_file(number, "cgroup.kill", "1");
	}
	ended_cgroups.again = now + ended_cgroups.pause;
	if (ended_cgroups.pause < SECOND)
		ended_cgroups.pause *= 2;
}

static void take_for_ended(long folder, const char *name)
{
	const long number = number_of(name);

	(void)folder;
	if (number > 0 && number < MOST_CGROUPS)
		mark_ended((uint32_t)number, 1);
}

// Take all cgroups in the folder for ended ones, until `mark_ended` says otherwise for those of living sessions.
static void find_cgroups(int64_t now)
{
	while (read_cgroups(options->sessions, take_for_ended))
		;
	ended_cgroups.again = now;
	ended_cgroups.pause = SOON;
}
