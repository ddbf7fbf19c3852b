// The environment of a program: assignments, where the last one for a name wins, and environment files.
//
// A file has lines `KEY=value`, `#` and `;` comments and empty lines. Blanks around key and value are dropped, and a
// pair of quotes around the value; there are no expansions and escapes. `export` may precede a key, a byte order mark
// the first line.
#pragma once

#include "lend.h"

enum { LARGEST_FILE = 1 << 20 };

static struct {
	const char **list; // NULL at its end
	uint32_t *table; // hash table of indices of the list plus 1; 0: empty
	uint32_t count, size; // of the table, a power of 2
} environment;

static size_t length_of_name(const char *assignment)
{
	size_t length = 0;

	while (assignment[length] && assignment[length] != '=')
		length++;
	return length;
}

// Return the place of a name in the table, or the empty place for it.
static uint32_t *slot_of(const char *name, size_t length)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)name[i]) * 16777619u;
	for (;; hash++) {
		uint32_t *slot = &environment.table[hash & (environment.size - 1)];
		const char *found = *slot ? environment.list[*slot - 1] : NULL;

		if (!found || (length_of_name(found) == length && is_same(found, name, length)))
			return slot;
	}
}

static void make_room(uint32_t more)
{
	const char **list = environment.list;
	const uint32_t wanted = environment.count + more + 1;
	uint32_t size = 64;

	if (environment.size / 2 >= wanted)
		return;
	while (size / 2 < wanted)
		size *= 2;
	environment.list = must_have(new_memory(size / 2 * sizeof *list));
	environment.table = must_have(new_memory(size * sizeof *environment.table));
	environment.size = size;
	for (uint32_t i = 0; i < size; i++)
		environment.table[i] = 0;
	for (uint32_t i = 0; i < environment.count; i++) {
		environment.list[i] = list[i];
		*slot_of(list[i], length_of_name(list[i])) = i + 1;
	}
	environment.list[environment.count] = NULL;
}

// Add an assignment, which is not copied.
static void assign(const char *assignment)
{
	uint32_t *slot;

	make_room(1);
	slot = slot_of(assignment, length_of_name(assignment));
	if (*slot) {
		environment.list[*slot - 1] = assignment;
		return;
	}
	environment.list[environment.count++] = assignment;
	environment.list[environment.count] = NULL;
	*slot = environment.count;
}

// Return the value of a name, or "".
static const char *value_of(const char *name, size_t length)
{
	uint32_t slot = environment.size ? *slot_of(name, length) : 0;

	return slot ? environment.list[slot - 1] + length + 1 : "";
}

static int is_blank(char byte)
{
	return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static int begins_name(char byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
}

static size_t size_of_name(const char *text, const char *end)
{
	const char *next = text;

	if (next == end || !begins_name(*next))
		return 0;
	while (next < end && (begins_name(*next) || (*next >= '0' && *next <= '9')))
		next++;
	return (size_t)(next - text);
}

static char *skip_blanks(char *text, const char *end)
{
	while (text < end && is_blank(*text))
		text++;
	return text;
}

static char *skip_export(char *text, const char *end)
{
	char *behind = text + sizeof "export" - 1;

	if (end - text <= (long)sizeof "export" - 1 || !is_same(text, "export", sizeof "export" - 1) ||
	    !is_blank(*behind))
		return text;
	return skip_blanks(behind, end);
}

// Convert a line to an assignment in place. Returns whether the line is valid or empty.
static int read_line(char *text, char *end)
{
	char *value;
	size_t length;

	text = skip_blanks(text, end);
	while (end > text && is_blank(end[-1]))
		end--;
	if (text == end || *text == '#' || *text == ';')
		return 1;
	text = skip_export(text, end);
	length = size_of_name(text, end);
	value = skip_blanks(text + length, end);
	if (!length || value == end || *value != '=')
		return 0;
	value = skip_blanks(value + 1, end);
	if (end - value >= 2 && *value == end[-1] && (*value == '"' || *value == '\'')) {
		value++;
		end--;
	}
	for (const char *byte = value; byte < end; byte++)
		if (!*byte)
			return 0;
	text[length] = '=';
	copy(text + length + 1, value, (size_t)(end - value));
	text[length + 1 + (size_t)(end - value)] = '\0';
	assign(text);
	return 1;
}

static void read_lines(char *text, char *end)
{
	uint64_t line = 1;

	if (end - text >= 3 && is_same(text, "\xef\xbb\xbf", 3))
		text += 3;
	for (char *next = text; next <= end; next++) {
		if (next < end && *next != '\n')
			continue;
		if (!read_line(text, next))
			fail(&(struct failure){ EINVAL, "line", "", 0, line });
		line++;
		text = next + 1;
	}
}

static void read_env_file(const struct operation *operation)
{
	const struct rights rights = rights_of(operation, 1);
	const long fd = open_as(string_of(operation, PATH), &rights, 0);
	char *text;
	long size = 0, got;

	if (fd == -ENOENT && operation->numbers[0])
		return;
	if (fd < 0)
		fail(&walk.failure);
	text = must_have(new_pages(LARGEST_FILE + 2)); // one byte more than is read: a NUL
	do {
		got = must(call(__NR_read, fd, (long)(text + size), LARGEST_FILE + 1 - size, 0));
		size += got;
		if (size > LARGEST_FILE)
			must(-EFBIG);
	} while (got > 0);
	close_fd(fd);
	read_lines(text, text + size);
}

// Add `NAME=` with a value that only this process knows.
static void assign_own(const char *name, const char *value, size_t length)
{
	const size_t before = length_of(name);
	char *text = must_have(new_memory(before + 1 + length + 1));

	copy(text, name, before);
	text[before] = '=';
	copy(text + before + 1, value, length);
	text[before + 1 + length] = '\0';
	assign(text);
}

static void assign_pid(const char *name)
{
	char digits[24];

	assign_own(name, digits, write_digits(digits, (uint64_t)call(__NR_getpid, 0, 0, 0, 0), 10, 1));
}

// Return the start time in the text of /proc/PID/stat, in ticks.
static uint64_t start_time(char *stat, size_t size)
{
	const char *next = stat + size;
	uint64_t started = 0;

	stat[size] = '\0';
	while (next > stat && *next != ')') // the name may contain any character
		next--;
	for (int field = 2; field < 22 && *next; next++) // proc_pid_stat(5)
		field += *next == ' ';
	for (; *next >= '0' && *next <= '9'; next++)
		started = started * 10 + (uint64_t)(*next - '0');
	return started;
}

// The mark of a start, like `start_mark` in `supervisor/process/marks.py`: start time and pid.
static void assign_start(const char *name)
{
	static char stat[1024] APART;
	const long fd = must(call(__NR_openat, AT_FDCWD, (long)"/proc/self/stat", O_RDONLY | O_CLOEXEC, 0));
	const long size = must(call(__NR_read, fd, (long)stat, sizeof stat - 1, 0));
	size_t length;
	char mark[32];

	close_fd(fd);
	length = write_digits(mark, start_time(stat, (size_t)size), 16, 24);
	length += write_digits(mark + length, (uint64_t)call(__NR_getpid, 0, 0, 0, 0), 16, 8);
	assign_own(name, mark, length);
}
