// An empty cgroup from the first look to its end, in three calls: cgroup_calls.py, beside this file, has their meaning.
//
// Each step of these takes the kernel less than it takes an interpreter to ask for it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SIZE = 4096, // bytes that are read of a file; the longest, cpu.stat, has some 300
	COUNTERS = 10,
	DONT_SYNC = AT_STATX_DONT_SYNC,
};

// What `look` returns.
enum { THERE = 1, POPULATED = 2, FROZEN = 4, ANOTHER = 8, OPENED = 16 };

// What `look` is asked for.
enum { OPEN = 1, WITH_FOLDER = 2 };

// One number of a cgroup: that behind `key` in a file, or without a key all that is in there.
struct counter {
	const char *file, *key;
};

// `folder` is -1 without WITH_FOLDER. A number that the kernel does not count is -1, and not in the set `found`.
struct opened {
	int64_t numbers[COUNTERS];
	double birth; // seconds since 1970, less than 0 where it is not known
	int32_t first; // the file of the first counter, which every cgroup has
	int32_t folder;
	int32_t found; // bit N: counter N
};

static int is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

// The next word from *at on, and its length; 0 at the end.
static size_t next_word(const char **at, const char *end, const char **word)
{
	while (*at < end && is_space(**at))
		++*at;
	*word = *at;
	while (*at < end && !is_space(**at))
		++*at;
	return (size_t)(*at - *word);
}

// A number without a sign, at most INT64_MAX; -1: it is none.
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

// What is in a file with a single number.
static int64_t single(const char *data, size_t size)
{
	const char *at = data, *word, *rest;
	size_t length = next_word(&at, data + size, &word);

	return next_word(&at, data + size, &rest) ? -1 : to_number(word, length);
}

// What `KEY NUMBER` lines say of a key, the last of them.
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

// Open NAME of the folder at `way`; an errno with a minus sign.
static int open_file(int above, const char *way, const char *name)
{
	char path[PATH_MAX + 1];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", way, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = openat(above, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

// Bytes of a small file; 0: there is none, or its cgroup has been deleted.
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

// Read the counters of the set `wanted`: 1; 0: the cgroup is gone, and `opened` keeps what was read before.
//
// That of the first file comes last, as it tells whether the cgroup is still there: so all that was read before, by
// name or not, was this cgroup's.
static int count(int above, const char *way, const struct counter *counters, int wanted, struct opened *opened)
{
	int64_t numbers[COUNTERS];
	char data[SIZE];
	const char *file = NULL;
	long size = 0;
	int found = 0;

	for (int i = 0; i < COUNTERS; i++) {
		const struct counter *counter = &counters[i];

		numbers[i] = -1;
		if (!(wanted & 1 << i) || !strcmp(counter->file, counters[0].file))
			continue;
		if (!file || strcmp(counter->file, file)) {
			file = counter->file;
			size = read_file(above, way, file, data);
			if (size < 0)
				return (int)size;
		}
		if (!size)
			continue;
		found |= 1 << i;
		numbers[i] = counter->key ? keyed(data, (size_t)size, counter->key) : single(data, (size_t)size);
	}
	size = pread(opened->first, data, SIZE, 0);
	if (size <= 0)
		return 0;
	for (int i = 0; i < COUNTERS && !strcmp(counters[i].file, counters[0].file); i++) {
		found |= 1 << i;
		numbers[i] = keyed(data, (size_t)size, counters[i].key);
	}
	memcpy(opened->numbers, numbers, sizeof(numbers));
	opened->found = found;
	return 1;
}

// Whether what is at `way`, or is open as `folder`, is the cgroup with this id; also when it was made.
static int is_cgroup(int above, const char *way, int folder, uint64_t id, struct opened *opened)
{
	struct statx status;
	int flags = DONT_SYNC | (folder < 0 ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH);

	if (statx(folder < 0 ? above : folder, folder < 0 ? way : "", flags, STATX_INO | STATX_BTIME, &status) < 0)
		return -errno;
	opened->birth = -1;
	if (status.stx_mask & STATX_BTIME)
		opened->birth = (double)status.stx_btime.tv_sec + status.stx_btime.tv_nsec / 1e9;
	return status.stx_ino == id;
}

// Open and read an empty cgroup: OPENED, ANOTHER, 0 where it is gone, or an errno with a minus sign.
static int open_it(int above, const char *way, int flags, uint64_t id, const struct counter *counters, int wanted,
		   struct opened *opened)
{
	int folder = -1, result = 0;

	if (flags & WITH_FOLDER) {
		folder = openat(above, way, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (folder < 0)
			return errno == ENOENT ? 0 : -errno;
	}
	opened->folder = folder;
	opened->first = open_file(folder < 0 ? above : folder, folder < 0 ? way : ".", counters[0].file);
	if (opened->first < 0)
		result = opened->first;
	else if ((result = is_cgroup(above, way, folder, id, opened)) == 0)
		result = ANOTHER;
	else if (result > 0 && (result = count(folder < 0 ? above : folder, folder < 0 ? way : ".", counters, wanted, opened)) > 0)
		return OPENED;
	if (opened->first >= 0)
		close(opened->first);
	if (folder >= 0)
		close(folder);
	return result == -ENOENT ? 0 : result;
}

int look(int above, const char *way, int flags, uint64_t id, const struct counter *counters, int wanted,
	 struct opened *opened)
{
	char data[SIZE];
	long size = read_file(above, way, "cgroup.events", data);
	int seen, result;

	if (size <= 0)
		return (int)size;
	seen = THERE | (has(data, size, "populated 1") ? POPULATED : 0) | (has(data, size, "frozen 1") ? FROZEN : 0);
	if (seen & POPULATED || !(flags & OPEN))
		return seen;
	result = open_it(above, way, flags, id, counters, wanted, opened);
	return result < 0 ? result : seen | result;
}

// Read the counters of the set `opened->found` again: 1; 0: the cgroup is gone.
int read_again(int above, const char *way, const struct counter *counters, struct opened *opened)
{
	int inside = opened->folder >= 0;

	return count(inside ? opened->folder : above, inside ? "." : way, counters, opened->found, opened);
}

// Delete a cgroup, close its first file, and end the watches on it, of which -1 is none: 0, or an errno with a minus sign.
int delete_cgroup(int above, const char *way, int first, int inotify, int first_watch, int second_watch)
{
	if (unlinkat(above, way, AT_REMOVEDIR) < 0)
		return -errno;
	close(first);
	if (first_watch >= 0)
		inotify_rm_watch(inotify, first_watch);
	if (second_watch >= 0)
		inotify_rm_watch(inotify, second_watch);
	return 0;
}
