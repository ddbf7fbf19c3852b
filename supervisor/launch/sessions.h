// Sessions: their slots, their processes, their ends.
#pragma once

#include <linux/eventpoll.h>
#include <linux/wait.h>

#include "cgroups.h"
#include "closing.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434 // Linux 5.3, the same on every architecture here
#endif
#ifndef __NR_pidfd_send_signal
#define __NR_pidfd_send_signal 424 // Linux 5.1
#endif

enum {
	CONNECTION = 3, // its number for the plan; in the acceptor, the number of the reserve
	BUCKETS = 1024,
	TICKS = 100, // a second, in /proc/PID/stat
	P_ALL_ = 0,
	PROCESS_GROUP_ = 4, // a flag of pidfd_send_signal(2): Linux 6.9
};

enum event { SIGNAL_EVENT, LISTENER_EVENT, SESSION_EVENT };

// This acceptor's part of a slot. Links are numbers of slots plus 1; 0 ends a list.
struct live {
	uint8_t source[KEY];
	int64_t deadline; // for the next signal
	uint32_t next_by_pid, next_by_source, next_free;
	int32_t pidfd; // of a session of an earlier acceptor, or -1
	int32_t next_signal;
};

static struct live live[MOST_SESSIONS] APART;
static uint32_t by_pid[BUCKETS] APART, by_source[BUCKETS] APART;
static uint32_t first_free; // slots behind `used` are free, too
static int64_t next_deadline = INT64_MAX;
static int epoll;

static struct {
	const struct plan *plan;
	const char **environment; // of the definition
	uint32_t environment_count;
	long umask; // of sessions
} model;

// The session that is being started.
static struct {
	struct session *session;
	int connection; // -1: it is on its way
} next;

static char report_text[sizeof table->report] APART;

static uint32_t *pid_bucket(int pid)
{
	return &by_pid[(uint32_t)pid % BUCKETS];
}

static uint32_t *source_bucket(const uint8_t *key)
{
	return &by_source[hash_of(key, table->header.seed) % BUCKETS];
}

static uint64_t sessions_of(const uint8_t *key)
{
	uint64_t count = 0;

	for (uint32_t i = *source_bucket(key); i; i = live[i - 1].next_by_source)
		count += (uint64_t)is_same((const char *)live[i - 1].source, (const char *)key, KEY);
	return count;
}

static void watch_fd(int operation, int fd, enum event event, uint32_t number, uint32_t events)
{
	struct epoll_event watch = { events, (uint64_t)event << 32 | number };

	must(call(__NR_epoll_ctl, epoll, operation, fd, (long)&watch));
}

// Take a free slot; there is one, as `max` is at most their number.
static uint32_t take_slot(void)
{
	const uint32_t found = first_free;

	if (!found) {
		__atomic_store_n(&table->header.used, table->header.used + 1, __ATOMIC_RELEASE);
		return table->header.used - 1;
	}
	first_free = live[found - 1].next_free;
	return found - 1;
}

static void free_slot(uint32_t slot)
{
	struct session *session = &table->slots[slot];

	begin_change(&session->changes);
	session->pid = 0;
	end_change(&session->changes);
	live[slot].next_free = first_free;
	first_free = slot + 1;
}

static void count_session(uint32_t slot)
{
	const struct session *session = &table->slots[slot];
	struct live *own = &live[slot];
	uint32_t *pid = pid_bucket(session->pid), *source;

	make_key(own->source, &session->peer, (unsigned int)options->v4_bits, (unsigned int)options->v6_bits);
	source = source_bucket(own->source);
	own->next_by_pid = *pid;
	own->next_by_source = *source;
	*pid = *source = slot + 1;
	own->pidfd = -1;
	own->next_signal = (int32_t)options->stop_signal;
	own->deadline = options->session_timeout ? session->from + options->session_timeout : INT64_MAX;
	if (own->deadline < next_deadline)
		next_deadline = own->deadline;
	add(&table->header.sessions, 1);
}

static void end_session(uint32_t slot, int status, int64_t now)
{
	struct session *session = &table->slots[slot];
	uint32_t *link;

	for (link = pid_bucket(session->pid); *link != slot + 1;)
		link = &live[*link - 1].next_by_pid;
	*link = live[slot].next_by_pid;
	for (link = source_bucket(live[slot].source); *link != slot + 1;)
		link = &live[*link - 1].next_by_source;
	*link = live[slot].next_by_source;
	if (live[slot].pidfd >= 0)
		close_fd(live[slot].pidfd);
	leave_cgroup(session->cgroup, now);
	say_end(session, status, now);
	add(&table->header.sessions, -1);
	add(&table->header.ended, 1);
	free_slot(slot);
}

static void assign_text(const char *name, const char *value)
{
	assign_own(name, value, length_of(value));
}

static void assign_number(const char *name, uint64_t number)
{
	char digits[24];

	assign_own(name, digits, write_digits(digits, number, 10, 1));
}

static void assign_address(const struct peer *peer, const char *const *names)
{
	char text[LONGEST_ADDRESS];
	const size_t length = write_address(text, peer);

	assign_own(names[0], text, length);
	assign_own(names[1], text, length);
	assign_number(names[2], peer->port);
	assign_number(names[3], peer->port);
}

// An abstract name begins with `@`, as in definitions.
static void assign_path(const char *name, int connection)
{
	union address address;
	uint32_t size = sizeof address;
	size_t begin = sizeof address.family, length = 0;

	memset(&address, 0, sizeof address);
	must(call(__NR_getsockname, connection, (long)&address, (long)&size, 0));
	if (size > begin && !address.un.sun_path[0])
		address.un.sun_path[length++] = '@';
	while (begin + length < size && address.un.sun_path[length])
		length++;
	assign_own(name, address.un.sun_path, length);
}

// Assign the variables of tcp-environ(5) and of systemd.socket(5).
static void assign_client(const struct peer *peer, int connection)
{
	static const char *const remote[] = { "REMOTE_ADDR", "TCPREMOTEIP", "REMOTE_PORT", "TCPREMOTEPORT" };
	static const char *const local[] = { "LOCAL_ADDR", "TCPLOCALIP", "LOCAL_PORT", "TCPLOCALPORT" };
	union address address;
	uint32_t size = sizeof address;
	struct peer own;

	if (peer->family == UNIX) {
		assign_text("PROTO", "UNIX");
		assign_number("REMOTE_UID", peer->uid);
		assign_number("REMOTE_PID", (uint64_t)peer->pid);
		assign_number("UNIXREMOTEEUID", peer->uid);
		assign_number("UNIXREMOTEEGID", peer->gid);
		assign_number("UNIXREMOTEPID", (uint64_t)peer->pid);
		assign_path("UNIXLOCALPATH", connection);
		return;
	}
	assign_text("PROTO", "TCP");
	assign_address(peer, remote);
	must(call(__NR_getsockname, connection, (long)&address, (long)&size, 0));
	take_address(&own, &address);
	assign_address(&own, local);
}

// In the child, which shares our memory: nothing that an earlier one has left is used, and failures stay in memory. The
// process has a slot before it executes the program. An acceptor that has taken over meanwhile does not count it.
static _Noreturn void become_session(void)
{
	struct session *session = next.session;

	environment = (typeof(environment)){ 0 };
	arguments = (typeof(arguments)){ 0 };
	session->to = clock_of(CLOCK_BOOTTIME);
	__atomic_store_n(&session->pid, (int32_t)call(__NR_getpid, 0, 0, 0, 0), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&table->header.generation, __ATOMIC_SEQ_CST) != generation)
		leave(EXIT_CHILD_FAILED);
	call(__NR_umask, model.umask, 0, 0, 0);
	must(call(__NR_dup3, next.connection < 0 ? must(take_arrived()) : next.connection, CONNECTION, O_CLOEXEC, 0));
	make_room(model.environment_count + 16);
	for (uint32_t i = 0; i < model.environment_count; i++)
		assign(model.environment[i]);
	assign_client(&session->peer, CONNECTION);
	carry_out(model.plan);
	leave(EXIT_CHILD_FAILED);
}

// Collect a report in memory, as long as `fd` is -1.
static void collect_report(void)
{
	report = (typeof(report)){
		.fd = -1, .operation = &start_operation.operation, .shared = report_text, .shared_size = sizeof report_text,
	};
}

static void say_trouble(void)
{
	const char *path = string_of(report.operation, PATH);

	say("cannot ");
	say(report.step);
	if (*path) {
		say(" ");
		say(path);
	}
	say(": ");
	say(*report.cause ? report.cause : error_text(report.failed));
	if (table->header.trouble.count > 0) {
		say("; failures before: ");
		say_number(table->header.trouble.count);
	}
	end_line();
}

// Write down the failed step of the report. Tell it if it is another one than the last, but not for ever where they
// take turns.
static void note_trouble(int64_t now)
{
	struct trouble *trouble = &table->header.trouble;
	static int64_t quiet_until, used;
	static const char *last_step;
	const int is_new = trouble->number != report.failed || last_step != report.step;

	if ((is_new || now >= quiet_until) && rate_begins(used, FIRST_ONES * QUIET) <= now) {
		say_trouble();
		quiet_until = now + QUIET;
		used = use_rate(used, QUIET, now);
	}
	last_step = report.step;
	begin_change(&trouble->changes);
	trouble->number = (int32_t)report.failed;
	trouble->count++;
	trouble->time = clock_of(CLOCK_REALTIME);
	trouble->size = report.shared_used;
	copy(table->report, report_text, report.shared_used);
	end_change(&trouble->changes);
	begin_report(LOG);
	report.shared = NULL;
}

// The same for a failure of the acceptor itself; `step` is a literal.
static void note_failure(const char *step, long number, int64_t now)
{
	collect_report();
	put_failure(step, &(struct failure){ number, "", "", 0, 0 });
	note_trouble(now);
}

static void fill_slot(struct session *session, const struct peer *peer)
{
	add(&table->header.started, 1);
	begin_change(&session->changes);
	session->number = table->header.started;
	session->since = clock_of(CLOCK_REALTIME);
	session->to = session->from = clock_of(CLOCK_BOOTTIME);
	session->peer = *peer;
	session->is_inherited = session->cgroup = 0;
	end_change(&session->changes);
}

static void note_start(uint32_t slot)
{
	const struct session *session = &table->slots[slot];

	table->header.last_start = session->since;
	count_session(slot);
	if (options->logged != EVERYTHING)
		return;
	say_session(session, " has started");
	end_line();
}

// Start the process of a session in a cgroup of its own. Returns the pid, or a negative errno of the step.
static long start_in_cgroup(const char **step)
{
	long folder, pid, result = take_cgroup();

	*step = "make the cgroup of a session";
	if (result < 0)
		return result;
	next.session->cgroup = (uint32_t)result;
	if (has_limits() && (result = limit_cgroup(next.session->cgroup)) < 0) {
		*step = "limit the cgroup of a session";
		return result;
	}
	folder = open_cgroup(next.session->cgroup);
	if (folder < 0)
		return folder;
	*step = "start a session in its cgroup";
	pid = start_sharing_in(folder, become_session, stack, sizeof stack);
	close_fd((int)folder);
	return pid;
}

// Close the connection of a session that has not come to be. Its process, which has it as well, ends by itself: we do not
// wait, as a close may.
static void close_unstarted(int connection)
{
	const long found = connection < 0 ? take_arrived() : connection;

	if (found >= 0)
		close_connection((int)found, connection < 0);
}

// Start a session with a connection, which is closed.
static void start_session(int connection, const struct peer *peer, int64_t now)
{
	const long result = peer->family == UNIX ? send_off(connection) : 0;
	const char *step = "start a session";
	uint32_t slot;
	long pid;

	if (result < 0) {
		note_failure("hand over a client", -result, now);
		close_connection(connection, 1);
		return;
	}
	slot = take_slot();
	next.session = &table->slots[slot];
	next.connection = result > 0 ? -1 : connection;
	fill_slot(next.session, peer);
	collect_report();
	pid = has_cgroups() ? start_in_cgroup(&step) : start_sharing(become_session, stack + sizeof stack);
	release_memory();
	if (pid > 0 && next.session->pid == pid && !report.failed) {
		if (next.connection >= 0)
			close_fd(connection);
		begin_report(LOG);
		report.shared = NULL;
		note_start(slot);
		return;
	}
	if (report.failed)
		note_trouble(now);
	else
		note_failure(step, pid > 0 ? EINTR : -pid, now); // it was killed, or is not there
	close_unstarted(next.connection);
	leave_cgroup(next.session->cgroup, now);
	add(&table->header.started, -1);
	free_slot(slot);
}

static void signal_session(uint32_t slot, int signum)
{
	const int pidfd = live[slot].pidfd;

	if (pidfd < 0)
		call(__NR_kill, -table->slots[slot].pid, signum, 0, 0);
	else if (call(__NR_pidfd_send_signal, pidfd, signum, 0, PROCESS_GROUP_) == -EINVAL)
		call(__NR_pidfd_send_signal, pidfd, signum, 0, 0);
}

// Kill what a session has left in its process group, whose number is taken as long as its first process is not reaped.
// Those in a cgroup of its own are killed with that.
static void kill_left(uint32_t slot)
{
	if (!has_cgroups() || !table->slots[slot].cgroup)
		signal_session(slot, SIGKILL_);
}

static void reap(int64_t now)
{
	for (;;) {
		siginfo_t info = { 0 };
		uint32_t slot;
		int status;

		if (call_six(__NR_waitid, P_ALL_, 0, (long)&info, WEXITED | WNOHANG | WNOWAIT, 0, 0) < 0 || !info.si_pid)
			return;
		for (slot = *pid_bucket(info.si_pid); slot && table->slots[slot - 1].pid != info.si_pid;)
			slot = live[slot - 1].next_by_pid;
		if (slot)
			kill_left(slot - 1);
		call(__NR_wait4, info.si_pid, (long)&status, 0, 0);
		if (slot)
			end_session(slot - 1, status, now);
		else
			end_closer(info.si_pid);
	}
}

// Send the signals that are due: first that of the definition, then KILL.
static void send_signals(int64_t since_boot)
{
	if (since_boot < next_deadline)
		return;
	next_deadline = INT64_MAX;
	for (uint32_t slot = 0; slot < table->header.used; slot++) {
		const struct session *session = &table->slots[slot];
		struct live *own = &live[slot];

		if (!session->pid)
			continue;
		if (own->deadline <= since_boot) {
			signal_session(slot, own->next_signal);
			own->deadline = own->next_signal == SIGKILL_ ? INT64_MAX : since_boot + options->stop_timeout;
			own->next_signal = SIGKILL_;
		}
		if (own->deadline < next_deadline)
			next_deadline = own->deadline;
	}
}
