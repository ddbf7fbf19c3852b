// Bulk calls on empty cgroups, from the first look to the deletion; cgroup_calls.py explains their use.
//
// A step costs the kernel less than an interpreter needs to request it. Each step is done for all cgroups before the
// next step where the order allows it, which makes good use of the caches.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	SIZE = 4096, // bytes read from a file; the longest one, cpu.stat, has about 300
	COUNTERS = 10,
	DONT_SYNC = AT_STATX_DONT_SYNC,
};

// Results of `look`.
enum { THERE = 1, POPULATED = 2, FROZEN = 4, ANOTHER = 8, OPENED = 16 };

// Flags for `look`.
enum { OPEN = 1, WITH_FOLDER = 2, COUNT_ALL = 4 };

// Reasons why `delete_cgroups` has not deleted a cgroup.
enum { GONE = 1, CHANGED = 2 };

// A number of a cgroup, behind `key` in a file or, without a key, the whole content of the file. Only cgroups with the
// controller have the file.
struct counter {
	const char *file, *key, *controller;
};

// A question of `look`; the way begins at the folder `above`.
struct asked {
	int64_t above, id, flags;
};

// Its answer. The first file is that of the first counter, which every cgroup has; `folder` is -1 without WITH_FOLDER.
// A number that the kernel does not count, or that was not asked for, is -1.
struct opened {
	int64_t seen; // a negative errno on failure
	int64_t birth; // nanoseconds since 1970, negative if unknown
	int64_t first, folder;
	int64_t numbers[COUNTERS];
};

// A cgroup to be deleted. `first_number` is the last value of the first counter; a watch of -1 stands for none.
struct doomed {
	int64_t above, first, first_number, watches[2];
};

static int is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

// Find the next word from *at on. Returns its length, 0 at the end.
static size_t next_word(const char **at, const char *end, const char **word)
{
	while (*at < end && is_space(**at))
		++*at;
	*word = *at;
	while (*at < end && !is_space(**at))
		++*at;
	return (size_t)(*at - *word);
}

// Parse an unsigned number up to INT64_MAX. Returns -1 for other text.
static int64_t to_number(const char *word, size_t length)
{
	int64_t number = 0;

	if (!length)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (word[i] < '0' || word[i] > '9')
			return -1;
		if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, word[i] - '0', &number))
			number = INT64_MAX;
	}
	return number;
}

// Parse a file with a single number.
static int64_t single(const char *data, size_t size)
{
	const char *at = data, *word, *rest;
	size_t length = next_word(&at, data + size, &word);

	return next_word(&at, data + size, &rest) ? -1 : to_number(word, length);
}

// Return the number of a key in `KEY NUMBER` lines, the last one if there are several.
static int64_t keyed(const char *data, size_t size, const char *key)
{
	const char *at = data, *end = data + size, *name, *word;
	size_t length, digits, wanted = strlen(key);
	int64_t number = -1;

	while ((length = next_word(&at, end, &name)) && (digits = next_word(&at, end, &word)))
		if (length == wanted && !memcmp(name, key, length))
			number = to_number(word, digits);
	return number;
}

// Open NAME in the folder at `way`. Returns a negative errno on failure.
static int open_file(int above, const char *way, const char *name)
{
	char path[PATH_MAX + 1];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", way, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = openat(above, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

// Read a small file. Returns its size, 0 if it is missing or its cgroup was deleted.
static long read_file(int above, const char *way, const char *name, char *data)
{
	int fd = open_file(above, way, name);
	ssize_t size;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	size = read(fd, data, SIZE);
	close(fd);
	return size > 0 ? size : 0;
}

static int has(const char *data, long size, const char *text)
{
	return memmem(data, (size_t)size, text, strlen(text)) != NULL;
}

// The set of counters that the children of a cgroup have besides those of the first file, bit N for counter N.
struct set {
	const char *way; // of one child
	size_t length; // of the way to their parent
	int64_t above;
	int counters;
};

// Find the set for the cgroup at `way`; siblings in sequence share it. Returns 0, or a negative errno.
static int find_set(const char *way, int64_t above, const struct counter *counters, struct set *set)
{
	const char *name = strrchr(way, '/');
	size_t length = name ? (size_t)(name - way) : 0;
	char data[SIZE + 2], text[64];
	long size;

	if (set->way && set->above == above && set->length == length && !memcmp(set->way, way, length))
		return 0;
	size = read_file((int)above, way, "../cgroup.subtree_control", data + 1); // empty without controllers
	if (size < 0)
		return (int)size;
	if (size && data[size] == '\n')
		size--;
	data[0] = data[size + 1] = ' ';
	*set = (struct set){way, length, above, 0};
	for (int i = 0; i < COUNTERS; i++) {
		if (!counters[i].controller)
			continue;
		snprintf(text, sizeof(text), " %s ", counters[i].controller);
		if (has(data, size + 2, text))
			set->counters |= 1 << i;
	}
	return 0;
}

// Read the counters of the set `wanted`, and those of the first file. Returns 1, 0 if the cgroup is gone, or a negative
// errno.
//
// The first file comes last, because it shows whether the cgroup still exists. If it does, all data read before, even
// by name, belong to this cgroup.
static int count(int above, const char *way, const struct counter *counters, int wanted, struct opened *opened)
{
	char data[SIZE];
	const char *file = NULL;
	long size = 0;

	for (int i = 0; i < COUNTERS; i++) {
		const struct counter *counter = &counters[i];

		opened->numbers[i] = -1;
		if (!(wanted & 1 << i))
			continue;
		if (!file || strcmp(counter->file, file)) {
			file = counter->file;
			size = read_file(above, way, file, data);
			if (size < 0)
				return (int)size;
		}
		if (size)
			opened->numbers[i] = counter->key ? keyed(data, (size_t)size, counter->key) : single(data, (size_t)size);
	}
	size = pread((int)opened->first, data, SIZE, 0);
	if (size <= 0)
		return 0;
	for (int i = 0; i < COUNTERS && !strcmp(counters[i].file, counters[0].file); i++)
		opened->numbers[i] = keyed(data, (size_t)size, counters[i].key);
	return 1;
}

// Return whether the cgroup at `way`, or the open `folder`, has this id, or a negative errno; note its birth.
static int is_cgroup(int above, const char *way, int folder, int64_t id, struct opened *opened)
{
	struct statx status;
	int flags = DONT_SYNC | (folder < 0 ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH);

	// by its number: the C library has it since 2.28, and wheels are for older ones
	if (syscall(SYS_statx, folder < 0 ? above : folder, folder < 0 ? way : "", flags, STATX_INO | STATX_BTIME,
		    &status) < 0)
		return -errno;
	opened->birth = -1;
	if (status.stx_mask & STATX_BTIME)
		opened->birth = status.stx_btime.tv_sec * 1000000000 + status.stx_btime.tv_nsec;
	return (status.stx_ino & INT64_MAX) == (uint64_t)id;
}

// Open and read an empty cgroup. Returns OPENED, ANOTHER, 0 if it is gone, or a negative errno.
static int open_it(const char *way, const struct asked *asked, const struct counter *counters, int wanted,
		   struct opened *opened)
{
	int above = (int)asked->above, folder = -1, first, result;

	if (asked->flags & WITH_FOLDER) {
		above = folder = openat(above, way, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (folder < 0)
			return errno == ENOENT ? 0 : -errno;
		way = ".";
	}
	opened->folder = folder;
	opened->first = first = open_file(above, way, counters[0].file);
	if (first < 0)
		result = first;
	else if ((result = is_cgroup(above, way, folder, asked->id, opened)) == 0)
		result = ANOTHER;
	else if (result > 0 && (result = count(above, way, counters, wanted, opened)) > 0)
		return OPENED;
	if (first >= 0)
		close(first);
	if (folder >= 0)
		close(folder);
	return result == -ENOENT ? 0 : result;
}

static int look_at(const char *way, const struct asked *asked, const struct counter *counters, struct set *set,
		   struct opened *opened)
{
	char data[SIZE];
	long size = read_file((int)asked->above, way, "cgroup.events", data);
	int seen, result;

	if (size <= 0)
		return (int)size;
	seen = THERE | (has(data, size, "populated 1") ? POPULATED : 0) | (has(data, size, "frozen 1") ? FROZEN : 0);
	if (seen & POPULATED || !(asked->flags & OPEN))
		return seen;
	if (asked->flags & COUNT_ALL && (result = find_set(way, asked->above, counters, set)) < 0)
		return result;
	result = open_it(way, asked, counters, asked->flags & COUNT_ALL ? set->counters : 0, opened);
	return result < 0 ? result : seen | result;
}

// Look at cgroups; `ways` are concatenated, each terminated by NUL.
void look(const char *ways, size_t number, const struct asked *asked, const struct counter *counters,
	  struct opened *opened)
{
	struct set set = {NULL, 0, 0, 0};

	for (size_t i = 0; i < number; i++, ways += strlen(ways) + 1)
		opened[i].seen = look_at(ways, &asked[i], counters, &set, &opened[i]);
}

// Delete a cgroup. Returns 0, GONE, CHANGED, or a negative errno.
//
// While its first file is readable, the name belongs to this cgroup, because cgroups cannot be renamed. Another cgroup
// is deleted only if a process replaces this one by it between these two system calls.
static int delete_cgroup(const char *way, const struct doomed *doomed, const char *key)
{
	char data[SIZE];
	ssize_t size = pread((int)doomed->first, data, SIZE, 0);

	if (size <= 0)
		return GONE;
	if (keyed(data, (size_t)size, key) != doomed->first_number)
		return CHANGED;
	return unlinkat((int)doomed->above, way, AT_REMOVEDIR) < 0 ? -errno : 0;
}

// Delete cgroups; then close the first file of each deleted cgroup, and end its watches.
void delete_cgroups(int inotify, const char *ways, size_t number, const struct doomed *doomed,
		    const struct counter *counters, int *results)
{
	for (size_t i = 0; i < number; i++, ways += strlen(ways) + 1)
		results[i] = delete_cgroup(ways, &doomed[i], counters[0].key);
	for (size_t i = 0; i < number; i++) {
		if (results[i])
			continue;
		for (int j = 0; j < 2; j++)
			if (doomed[i].watches[j] >= 0)
				inotify_rm_watch(inotify, (int)doomed[i].watches[j]);
		close((int)doomed[i].first);
	}
}
