// Lines for the log, which never wait for its reader, and are bounded in number.
#pragma once

#include <linux/poll.h>
#include <linux/uio.h>

#include "peer.h"

enum {
	MSG_DONTWAIT_ = 0x40,
	MSG_NOSIGNAL_ = 0x4000,
	RWF_NOWAIT_ = 8,
	LOG = 2,
	LONGEST_LINE = 1024,
};

#define SECOND 1000000000ll
#define QUIET (60 * SECOND) // between two lines about the same
#define EACH_END (10 * SECOND) // the same for sessions that fail, after the first ones
#define FIRST_ONES 20

static struct {
	char text[LONGEST_LINE];
	size_t size;
} line APART;

// Limit of a rate. Each start uses up a time, and as much may be used up in advance as `credit` says.
static int64_t rate_begins(int64_t used, int64_t credit)
{
	return used - credit;
}

static int64_t use_rate(int64_t used, int64_t each, int64_t now)
{
	return (used > now ? used : now) + each;
}

static void say_bytes(const char *text, size_t length)
{
	for (size_t i = 0; i < length && line.size < LONGEST_LINE - 1; i++)
		line.text[line.size++] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
}

static void say(const char *text)
{
	say_bytes(text, length_of(text));
}

static void say_number(uint64_t number)
{
	char digits[24];

	say_bytes(digits, write_digits(digits, number, 10, 1));
}

static void say_seconds(int64_t time)
{
	char digits[24];

	say_number((uint64_t)(time / SECOND));
	say(".");
	say_bytes(digits, write_digits(digits, (uint64_t)(time % SECOND / 1000000), 10, 3));
	say(" s");
}

static void say_peer(const struct peer *peer)
{
	char address[LONGEST_ADDRESS];

	if (peer->family == UNIX) {
		say("uid ");
		say_number(peer->uid);
		say(" pid ");
		say_number((uint64_t)peer->pid);
		return;
	}
	say_bytes(address, write_address(address, peer));
	say(" port ");
	say_number(peer->port);
}

// Write to a socket, or to a pipe of a kernel that can refuse to wait, or else once it has room.
static long write_without_waiting(const char *text, size_t size)
{
	struct iovec part = { (void *)text, size };
	struct pollfd log = { LOG, POLLOUT, 0 };
	const struct __kernel_timespec now = { 0, 0 };
	long result = call_six(__NR_sendto, LOG, (long)text, (long)size, MSG_DONTWAIT_ | MSG_NOSIGNAL_, 0, 0);

	if (result == -ENOTSOCK)
		result = call_six(__NR_pwritev2, LOG, (long)&part, 1, -1, -1, RWF_NOWAIT_);
	if (result != -EOPNOTSUPP)
		return result;
	if (call_six(__NR_ppoll, (long)&log, 1, (long)&now, 0, 0, 0) != 1 || !(log.revents & POLLOUT))
		return -EAGAIN;
	return call(__NR_write, LOG, (long)text, (long)size, 0);
}

static void end_line(void)
{
	line.text[line.size++] = '\n';
	if (write_without_waiting(line.text, line.size) != (long)line.size)
		add(&table->header.lost_lines, 1);
	line.size = 0;
}

static void say_refused(const struct peer *peer, enum rule rule, int64_t now)
{
	static const char *const names[RULES] = {
		"", "no_access", "only_from", "hours", "trap", "trap of another service", "per_source",
		"source_rate", "max", "rate", "load_max", "memory_min",
	};
	static struct {
		int64_t next;
		uint64_t more;
	} last[RULES];

	if (options->logged == NOTHING)
		return;
	if (now < last[rule].next) {
		last[rule].more++;
		return;
	}
	say("refused ");
	say_peer(peer);
	say(": ");
	say(names[rule]);
	if (last[rule].more > 0) {
		say("; refused before: ");
		say_number(last[rule].more);
	}
	end_line();
	last[rule].next = now + QUIET;
	last[rule].more = 0;
}

static void say_session(const struct session *session, const char *what)
{
	say("session ");
	say_number((uint64_t)session->pid);
	say(" of ");
	say_peer(&session->peer);
	say(what);
}

static void say_status(int status)
{
	const int signal = status & 0x7f;

	say(signal ? "killed by signal " : "exit status ");
	say_number((uint64_t)(signal ? signal : status >> 8 & 0xff));
}

// Sessions that fail one after the other are told now and then, after the first ones, and counted meanwhile.
static void say_end(const struct session *session, int status, int64_t now)
{
	static int64_t used;
	static uint64_t more;
	const int is_told = options->logged == EVERYTHING || (options->logged == FAILURES && status != 0);

	if (!is_told)
		return;
	if (options->logged == FAILURES && rate_begins(used, FIRST_ONES * EACH_END) > now) {
		more++;
		return;
	}
	used = use_rate(used, EACH_END, now);
	say_session(session, " has ended after ");
	say_seconds(clock_of(CLOCK_BOOTTIME) - session->from);
	say(": ");
	if (session->is_inherited)
		say("status unknown");
	else
		say_status(status);
	if (more > 0) {
		say("; failed before: ");
		say_number(more);
	}
	more = 0;
	end_line();
}
