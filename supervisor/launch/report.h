// The report of a process to spawnd: a JSON object for a failed step, after lines for missing features.
//
// `about` names a cause beyond the errno; `failure.py` has its text.
#pragma once

#include <linux/errno.h>

#include "plan.h"

enum { EXIT_CHILD_FAILED = 111 }; // as in `fork.py`

struct failure {
	long number; // an errno
	const char *about; // "": no more than the errno
	const char *name; // of the file, or the relevant bytes
	size_t name_size;
	uint64_t value; // a user, or a line
};

static struct {
	int fd; // of the pair of sockets
	int is_begun; // whether a cause other than an error of the kernel was found
	const struct operation *operation; // that is being carried out
	unsigned int used;
	char bytes[512];
	char *shared; // memory for the report, NULL if no filter can refuse a write
	unsigned int shared_used, shared_size;
	int is_filtered; // whether a filter may end the process for a system call
	long failed; // the errno of the failed step
	const char *step, *cause; // of that, where it is not the errno
} report;

// An operation for failures before the plan is read.
static const struct {
	struct operation operation;
	char strings[8];
} start_operation = { { 0, 0, 0, LABELS, 24 }, "start\0" };

static void begin_report(int fd)
{
	report.operation = &start_operation.operation;
	report.fd = fd;
}

enum { SHARED_REPORT = 1 << 16 }; // bytes; the longest report has a path and 256 bytes, each of them as six

// The last byte stays NUL.
static void share(void)
{
	if (report.shared_used + report.used >= report.shared_size)
		return;
	copy(report.shared + report.shared_used, report.bytes, report.used);
	report.shared_used += report.used;
}

static void flush(void)
{
	unsigned int done = 0;

	if (report.shared)
		share();
	while (done < report.used) {
		const long result = call(__NR_write, report.fd, (long)(report.bytes + done), report.used - done, 0);

		if (result <= 0 && result != -EINTR)
			break;
		done += result > 0 ? (unsigned int)result : 0;
	}
	report.used = 0;
}

static void put_byte(char byte)
{
	if (report.used == sizeof report.bytes)
		flush();
	report.bytes[report.used++] = byte;
}

static void put(const char *text)
{
	while (*text)
		put_byte(*text++);
}

// Write a part of a JSON string; a byte beyond ASCII becomes a lone surrogate, Python's form of invalid UTF-8.
static void put_escaped(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		const unsigned char byte = (unsigned char)text[i];

		if (byte >= ' ' && byte < 0x7f && byte != '"' && byte != '\\') {
			put_byte(text[i]);
			continue;
		}
		put(byte < 0x80 ? "\\u00" : "\\udc");
		put_byte("0123456789abcdef"[byte >> 4]);
		put_byte("0123456789abcdef"[byte & 15]);
	}
}

static void put_string(const char *key, const char *text, size_t length)
{
	put("\"");
	put(key);
	put("\": \"");
	put_escaped(text, length);
	put("\", ");
}

static void put_number(const char *key, uint64_t number)
{
	char digits[24];

	digits[write_digits(digits, number, 10, 1)] = '\0';
	put("\"");
	put(key);
	put("\": ");
	put(digits);
}

static void put_text(const char *key, const char *text)
{
	put_string(key, text, length_of(text));
}

static void put_failure(const char *step, const struct failure *failure)
{
	const struct operation *operation = report.operation;
	const int is_refused = operation->refused == failure->number && !failure->about[0];

	put("{");
	put_text("step", step);
	put_text("path", string_of(operation, PATH));
	put_text("cause", is_refused ? string_of(operation, CAUSE) : "");
	put_text("about", failure->about);
	put_string("name", failure->name, failure->name_size);
	put_number("value", failure->value);
	put(", ");
	put_number("errno", (uint64_t)failure->number);
	put("}");
	flush();
	report.failed = failure->number;
	report.step = step;
	report.cause = is_refused ? string_of(operation, CAUSE) : "";
}

static _Noreturn void fail_step(const char *step, const struct failure *failure)
{
	put_failure(step, failure);
	leave(EXIT_CHILD_FAILED);
}

static _Noreturn void fail(const struct failure *failure)
{
	fail_step(string_of(report.operation, STEP), failure);
}

static _Noreturn void fail_without_plan(void)
{
	fail(&(struct failure){ EINVAL, "plan", "", 0, 0 });
}

// Return a result, but report an error of the kernel.
static long must(long result)
{
	if (result < 0 && result > -4096)
		fail(&(struct failure){ -result, "", "", 0, 0 });
	return result;
}

static void *must_have(void *memory)
{
	if (!memory)
		must(-ENOMEM);
	return memory;
}

static void notice(long number)
{
	put("{");
	put_text("notice", string_of(report.operation, STEP));
	put_text("then", string_of(report.operation, CAUSE));
	put_number("errno", (uint64_t)number);
	put("}\n");
	flush();
}
