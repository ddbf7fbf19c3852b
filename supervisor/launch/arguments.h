// The program: its arguments, its execution, and the report of a failure.
//
// Variables in arguments are expanded like in systemd: systemd.service(5), "Command lines".
// A separate argument `$NAME` becomes the words of its value, none or many, where quotes join words. `${NAME}` becomes
// its value anywhere, and `$$` becomes `$`.
#pragma once

#include "environment.h"

enum {
	FIRST_LINE = 256, // bytes of a program that the kernel looks at: BINPRM_BUF_SIZE
	IS_THERE = 1, // of a program that was not executed, for the report
	IS_COMMAND_LINE = 2,
	IRREGULAR = 2, // what forbids an exec, like UNSEARCHABLE, for the report
	ON_NOEXEC = 3,
	INEXECUTABLE = 4,
	OF_INTERPRETER = 8, // that is added
	MOST_INTERPRETERS = 5, // of interpreters, as in the kernel
	ST_NOEXEC_ = 8,
	X_OK_ = 1,
};

static struct {
	const char **list; // NULL at its end
	uint32_t count, room;
} arguments;

static void add_argument(const char *argument)
{
	if (arguments.count + 1 >= arguments.room) {
		const uint32_t room = arguments.room ? 2 * arguments.room : 32;
		const char **list = must_have(new_memory(room * sizeof *list));

		copy(list, arguments.list, arguments.count * sizeof *list);
		arguments.list = list;
		arguments.room = room;
	}
	arguments.list[arguments.count++] = argument;
	arguments.list[arguments.count] = NULL;
}

// Return the closing quote for the quote at `text`, or NULL.
static const char *closing(const char *text)
{
	const char *next = text + 1;

	if (*text != '"' && *text != '\'')
		return NULL;
	while (*next && *next != *text)
		next++;
	return *next ? next : NULL;
}

// Write a word without its quotes; return the text after it.
static const char *take_word(const char *text, char **to)
{
	while (*text && !is_blank(*text)) {
		const char *end = closing(text);

		if (end) {
			copy(*to, text + 1, (size_t)(end - text - 1));
			*to += end - text - 1;
			text = end + 1;
		} else {
			*(*to)++ = *text++;
		}
	}
	*(*to)++ = '\0';
	return text;
}

static void add_words(const char *value)
{
	char *word = must_have(new_memory(length_of(value) + 1));

	for (;;) {
		const char *begins = word;

		while (is_blank(*value))
			value++;
		if (!*value)
			return;
		value = take_word(value, &word);
		add_argument(begins);
	}
}

// Expand the variable or `$` at `text`. Returns the text after it and its value, or `text` if there is none.
static const char *part(const char *text, const char **value)
{
	size_t length;

	*value = "";
	if (text[0] != '$')
		return text;
	if (text[1] == '$') {
		*value = "$";
		return text + 2;
	}
	if (text[1] != '{')
		return text;
	length = size_of_name(text + 2, text + length_of(text));
	if (!length || text[2 + length] != '}')
		return text;
	*value = value_of(text + 2, length);
	return text + 3 + length;
}

static void add_expanded(const char *argument)
{
	const char *value, *next, *behind;
	size_t size = 1;
	char *text, *to;

	for (next = argument; *next; next = behind > next ? behind : next + 1) {
		behind = part(next, &value);
		size += behind > next ? length_of(value) : 1;
	}
	to = text = must_have(new_memory(size));
	for (next = argument; *next; next = behind > next ? behind : next + 1) {
		behind = part(next, &value);
		if (behind > next) {
			copy(to, value, length_of(value));
			to += length_of(value);
		} else {
			*to++ = *next;
		}
	}
	*to = '\0';
	add_argument(text);
}

// Put the arguments of an operation into `arguments`. The first one is not expanded.
static void take_arguments(const struct operation *operation)
{
	const uint64_t flags = operation->kind == EXECUTE ? operation->numbers[0] : 0;
	const uint32_t first = LABELS + (flags & HAS_ARGV0 ? 1 : 0);
	const char *argument = string_of(operation, first);
	size_t name;

	for (uint32_t i = first; i < operation->string_count; i++, argument = next_string(argument)) {
		name = argument[0] == '$' ? size_of_name(argument + 1, argument + length_of(argument)) : 0;
		if (!(flags & EXPANDS) || i == first)
			add_argument(argument);
		else if (name > 0 && !argument[1 + name])
			add_words(value_of(argument + 1, name));
		else
			add_expanded(argument);
	}
}

static int exists(const char *path)
{
	struct statx found;

	return call_six(__NR_statx, AT_FDCWD, (long)path, 0, STATX_TYPE, (long)&found, 0) == 0;
}

// Whether a path is an existing path followed by a space and arguments.
static int is_command_line(const char *path)
{
	static char program[PATH_MAX] APART;
	struct statx found;
	size_t length = 0;

	while (path[length] && path[length] != ' ')
		length++;
	if (!path[length] || length >= sizeof program)
		return 0;
	copy(program, path, length);
	program[length] = '\0';
	return call_six(__NR_statx, AT_FDCWD, (long)program, 0, STATX_TYPE, (long)&found, 0) == 0 &&
	       is_type(&found, S_IFREG);
}

// Open a program with O_PATH, as the kernel finds it for this process. `walk.folder` is where that ended, for the caller
// to close: after EACCES, the folder that this process may not search.
static long find_program(const char *path)
{
	long result;

	walk.rights = NULL;
	walk.follows_all = 1;
	walk.links_left = MAX_LINKS;
	copy(walk.rest, path, length_of(path) + 1);
	walk.folder = (int)call(__NR_openat, AT_FDCWD, (long)"/", HOLD | O_DIRECTORY, 0);
	result = walk.folder < 0 ? walk.folder : enter();
	return result < 0 ? result : hold();
}

static uint64_t what_forbids(long held)
{
	struct statx status;
	struct statfs64 found;

	if (held == -EACCES)
		return UNSEARCHABLE;
	if (held < 0 || look_at((int)held, &status) < 0)
		return 0;
	if (!is_type(&status, S_IFREG))
		return IRREGULAR;
	if (call(__NR_fstatfs, held, (long)&found, 0, 0) == 0 && found.f_flags & ST_NOEXEC_)
		return ON_NOEXEC;
	if (call(__NR_faccessat2, held, (long)"", X_OK_, AT_EMPTY_PATH | AT_EACCESS) == -EACCES)
		return INEXECUTABLE;
	return 0;
}

// Return the path of the interpreter that a held file names in its first line, or NULL. Closes the file.
static const char *interpreter_of(long held)
{
	static char line[FIRST_LINE] APART;
	const long fd = held < 0 ? held : open_held((int)held);
	const long size = call(__NR_read, fd, (long)line, sizeof line - 1, 0);
	char *begin = line + 2, *end;

	if (fd >= 0)
		close_fd(fd);
	if (size < 2 || !is_same(line, "#!", 2))
		return NULL;
	line[size] = '\0';
	while (is_blank(*begin) && *begin != '\n')
		begin++;
	for (end = begin; *end && !is_blank(*end);)
		end++;
	*end = '\0';
	return *begin == '/' ? begin : NULL;
}

// Find out what forbids an exec: a folder on the way to the program or to its interpreter, or one of these files.
static void find_forbidden(const char *path, struct failure *failure)
{
	static char found[PATH_MAX] APART;
	uint64_t of_interpreter = 0;

	for (int i = 0; i < MOST_INTERPRETERS && path; i++) {
		const long held = find_program(path);
		const uint64_t what = what_forbids(held);
		const long size = what ? read_path(what == UNSEARCHABLE ? walk.folder : (int)held, found) : 0;

		if (walk.folder >= 0)
			close_fd(walk.folder);
		path = interpreter_of(held);
		if (what) {
			*failure = (struct failure){ failure->number, "forbidden", found, size > 0 ? (size_t)size : 0,
						     what | of_interpreter };
			return;
		}
		of_interpreter = OF_INTERPRETER;
	}
}

// Report a failed exec with the beginning of the file, which `failure.py` uses for the diagnosis. A filter may end a
// process that makes any further system call.
static _Noreturn void fail_to_execute(const char *path, long number)
{
	static char begin[FIRST_LINE] APART;
	struct failure failure = { number, "", "", 0, 0 };

	if (!report.is_filtered && number == EACCES) {
		find_forbidden(path, &failure);
	} else if (!report.is_filtered && (number == ENOEXEC || number == ENOENT)) {
		const long fd = call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
		const long size = call(__NR_read, fd, (long)begin, sizeof begin, 0);

		failure.about = "program";
		failure.name = begin;
		failure.name_size = size > 0 ? (size_t)size : 0;
		failure.value = (exists(path) ? IS_THERE : 0) | (is_command_line(path) ? IS_COMMAND_LINE : 0);
	}
	fail(&failure);
}

static void prepare_program(const struct operation *operation)
{
	if (arguments.count > 0)
		return;
	take_arguments(operation);
	make_room(0);
}

static void execute(const struct operation *operation)
{
	const char *path = string_of(operation, LABELS);

	prepare_program(operation);
	fail_to_execute(path, -call(__NR_execve, (long)path, (long)arguments.list, (long)environment.list, 0));
}

// Execute a program that may be out of reach by now, and that the process does not keep open.
static void execute_descriptor(const struct operation *operation)
{
	const long fd = (long)operation->numbers[0];

	prepare_program(operation);
	must(call(__NR_fcntl, fd, F_SETFD, FD_CLOEXEC, 0));
	must(call_six(__NR_execveat, fd, (long)"", (long)arguments.list, (long)environment.list, AT_EMPTY_PATH, 0));
}
