// Acceptor of a service that has a process for each connection: `acceptor OPTIONS`, with the number of a descriptor.
//
// It holds the listening sockets, checks who may connect, and starts a session for each client: a child that shares its
// memory, as after vfork(2), carries out a plan and executes the program of the service. It uses no library, and has no
// input but its options, the plan, the table that it shares with spawnd, and the clients. It ends with status 0 once it
// has had no session and no client for some time; TERM ends it at once. Sessions live on.
#include <linux/close_range.h>
#include <linux/poll.h>
#include <linux/signalfd.h>

#include "clients.h"

enum {
	EVENTS = 64,
	MOST_OF_A_TURN = 16, // clients of a socket
	SIGPIPE_ = 13,
	EPOLL_CLOEXEC_ = 02000000,
};

#define BACKOFF (SECOND / 5) // after a client could not be accepted

static struct {
	int signals; // a descriptor
	int watches; // whether clients are accepted
	int64_t backoff; // the end of it
	int64_t quiet; // the time of the last client or session
} turn;

static uint64_t bit_of(int signum)
{
	return 1ull << (signum - 1);
}

static const int64_t *listeners(void)
{
	return items(options->listeners);
}

static void take_environment_of(const char **words)
{
	while (words[model.environment_count])
		model.environment_count++;
	model.environment = words;
}

static void take_plan(void)
{
	size_t size;

	model.plan = read_sealed(options->plan, PLAN_LARGEST, &size);
	if (!is_plan(model.plan, size, SESSION_OF_SERVICE))
		fail_without_plan();
}

// No descriptor of ours is left to a session but those that its plan places; all descriptors that are permitted are for
// the acceptor, whose sessions have the limit of their plan.
static void take_descriptors(void)
{
	const int at_once[2] = { 0 };
	uint64_t limit[2];

	must(call(__NR_fcntl, CONNECTION, F_GETFD, 0, 0));
	must(call(__NR_close_range, CONNECTION, UINT32_MAX, CLOSE_RANGE_CLOEXEC, 0));
	must(call(__NR_prlimit64, 0, RLIMIT_NOFILE_, 0, (long)limit));
	limit[0] = limit[1];
	must(call(__NR_prlimit64, 0, RLIMIT_NOFILE_, (long)limit, 0));
	for (uint32_t i = 0; i < options->listeners.count; i++) {
		const long flags = must(call(__NR_fcntl, (long)listeners()[i], F_GETFL, 0, 0));

		must(call(__NR_fcntl, (long)listeners()[i], F_SETFL, flags | O_NONBLOCK, 0));
		// a program that had the socket before may have set SO_LINGER, which connections take over
		call_six(__NR_setsockopt, (long)listeners()[i], SOL_SOCKET, SO_LINGER, (long)&at_once, sizeof at_once, 0);
	}
}

static void begin_events(void)
{
	const uint64_t blocked = bit_of(SIGPIPE_) | bit_of(SIGCHLD_), child = bit_of(SIGCHLD_);

	must(call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&blocked, 0, SIGSET_SIZE));
	make_way();
	epoll = (int)must(call(__NR_epoll_create1, EPOLL_CLOEXEC_, 0, 0, 0));
	turn.signals = (int)must(call(__NR_signalfd4, -1, (long)&child, SIGSET_SIZE, O_CLOEXEC | O_NONBLOCK));
	watch_fd(EPOLL_CTL_ADD, turn.signals, SIGNAL_EVENT, 0, EPOLLIN);
	for (uint32_t i = 0; i < options->listeners.count; i++)
		watch_fd(EPOLL_CTL_ADD, (int)listeners()[i], LISTENER_EVENT, i, 0);
}

// Return the start time of a process in ticks, 0 if there is none, or -1 if it cannot be told.
static int64_t ticks_of(int pid)
{
	static char stat[1024] APART;
	char path[32];
	long fd, size;

	copy(path + write_digits(path, (uint64_t)pid, 10, 1), "/stat", sizeof "/stat");
	fd = call(__NR_openat, (long)options->processes, (long)path, O_RDONLY | O_CLOEXEC, 0);
	size = fd < 0 ? fd : call(__NR_read, fd, (long)stat, sizeof stat - 1, 0);
	if (fd >= 0)
		close_fd(fd);
	if (size == -ENOENT || size == -ESRCH)
		return 0;
	return size < 0 ? -1 : (int64_t)start_time(stat, (size_t)size);
}

static int is_of(const struct session *session, int64_t ticks)
{
	const int64_t tick = SECOND / TICKS;

	return ticks < 0 || (session->from / tick <= ticks && ticks <= session->to / tick);
}

// Whether a number is that of no process, by the result of pidfd_open(2): it may be that of a thread of another one.
static int is_nobody(long pidfd)
{
	return pidfd == -ESRCH || pidfd == -EINVAL || pidfd == -ENOENT;
}

// Watch a session of an earlier acceptor, whose end has no status. Returns whether it is still there.
static int inherit(uint32_t slot)
{
	struct session *session = &table->slots[slot];
	long pidfd;

	if (session->changes & 1)
		end_change(&session->changes);
	if (!session->pid)
		return 0;
	pidfd = call(__NR_pidfd_open, session->pid, 0, 0, 0);
	session->is_inherited = 1;
	count_session(slot);
	if (is_nobody(pidfd) || (must(pidfd) >= 0 && !is_of(session, ticks_of(session->pid)))) {
		live[slot].pidfd = (int)pidfd;
		return 0;
	}
	live[slot].pidfd = (int)pidfd;
	watch_fd(EPOLL_CTL_ADD, (int)pidfd, SESSION_EVENT, slot, EPOLLIN);
	return 1;
}

// Cgroups of sessions that nobody counts end, also those that the last acceptor was about to remove.
static void take_over_cgroups(int64_t now)
{
	find_cgroups(now);
	for (uint32_t slot = 0; slot < table->header.used; slot++)
		if (table->slots[slot].pid && table->slots[slot].cgroup < MOST_CGROUPS)
			mark_ended(table->slots[slot].cgroup, 0);
}

// A slot without a pid is free: its process, if there is one, ends before it is a session.
static void take_over(int64_t now)
{
	set(&table->header.sessions, 0);
	set(&table->header.held, 0);
	for (uint32_t slot = table->header.used; slot-- > 0;)
		if (!inherit(slot)) {
			if (table->slots[slot].pid)
				end_session(slot, 0, now);
			else
				free_slot(slot);
		}
	if (has_cgroups())
		take_over_cgroups(now);
	close_fd(options->processes); // a way out of a changed root, which is closed before the first client comes
}

static void watch_clients(int wanted)
{
	if (wanted == turn.watches)
		return;
	for (uint32_t i = 0; i < options->listeners.count; i++)
		watch_fd(EPOLL_CTL_MOD, (int)listeners()[i], LISTENER_EVENT, i, wanted ? EPOLLIN : 0);
	turn.watches = wanted;
}

static int is_about_the_client(long error)
{
	switch (-error) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case EPERM: // by a firewall
	case ENETDOWN:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
		return 1;
	}
	return 0;
}

static int has_client(int listener)
{
	struct pollfd look = { .fd = listener, .events = POLLIN };
	const struct __kernel_timespec none = { 0, 0 };

	return call_six(__NR_ppoll, (long)&look, 1, (long)&none, 0, 0, 0) > 0;
}

static void fail_to_accept(int listener, long error, int64_t now)
{
	if (error == -EMFILE || error == -ENFILE) {
		if (!has_client(listener))
			return; // accept4(2) takes a descriptor before it looks for a client
		drop_client(listener);
	}
	note_failure("accept a client", -error, now);
	turn.backoff = now + BACKOFF;
}

static void accept_clients(int listener)
{
	serve_held(clock_of(CLOCK_MONOTONIC));
	for (int i = 0; i < MOST_OF_A_TURN; i++) {
		const int64_t now = clock_of(CLOCK_MONOTONIC);
		union address address;
		uint32_t size = sizeof address;
		struct peer peer;
		long connection;

		if (!wants_clients(now))
			return;
		address.family = 0;
		connection = call(__NR_accept4, listener, (long)&address, (long)&size, O_CLOEXEC);
		if (connection == -EAGAIN)
			return;
		if (connection < 0 && is_about_the_client(connection))
			continue;
		if (connection < 0) {
			fail_to_accept(listener, connection, now);
			return;
		}
		turn.quiet = now;
		take_peer(&peer, (int)connection, &address);
		admit((int)connection, &peer, now);
	}
}

static void take_signals(int64_t now)
{
	struct signalfd_siginfo unused;

	while (call(__NR_read, turn.signals, (long)&unused, sizeof unused, 0) > 0)
		;
	reap(now);
	turn.quiet = now;
}

static void take_event(const struct epoll_event *event, int64_t now)
{
	const uint32_t number = (uint32_t)event->data;

	switch ((enum event)(event->data >> 32)) {
	case SIGNAL_EVENT:
		take_signals(now);
		break;
	case LISTENER_EVENT:
		accept_clients((int)listeners()[number]);
		break;
	case SESSION_EVENT:
		kill_left(number);
		end_session(number, 0, now);
		turn.quiet = now;
		break;
	}
}

static int64_t earlier(int64_t one, int64_t other)
{
	return one < other ? one : other;
}

static int64_t end_of_linger(void)
{
	const int is_needed = table->header.sessions || held.count || refused.count || ended_cgroups.count ||
			      closers.count || !turn.watches;

	return is_needed || options->linger < 0 ? INT64_MAX : turn.quiet + options->linger;
}

// Do what is due; return the time until something else is.
static int64_t settle(int64_t now)
{
	const int64_t boot = clock_of(CLOCK_BOOTTIME);
	int64_t next;

	send_signals(boot);
	settle_cgroups(now);
	while (refused.count > 0 && refused.connections[refused.first].until <= now)
		close_first();
	serve_held(now);
	next = close_left_open(now);
	set(&table->header.limit, full(now));
	watch_clients(now >= turn.backoff && wants_clients(now));
	next = earlier(next, earlier(host.again, end_of_linger()));
	if (now < turn.backoff)
		next = earlier(next, turn.backoff);
	if (refused.count > 0)
		next = earlier(next, refused.connections[refused.first].until);
	if (ended_cgroups.count > 0)
		next = earlier(next, ended_cgroups.again);
	next = next == INT64_MAX ? next : next - now;
	return next_deadline == INT64_MAX ? next : earlier(next, next_deadline - boot);
}

static long wait_for_events(struct epoll_event *events, int64_t time)
{
	const int64_t ms = (time + 999999) / 1000000;
	const long timeout = time == INT64_MAX ? -1 : ms < 0 ? 0 : ms > 3600000 ? 3600000 : (long)ms;
	const long count = call_six(__NR_epoll_pwait, epoll, (long)events, EVENTS, timeout, 0, SIGSET_SIZE);

	return count == -EINTR ? 0 : must(count);
}

static _Noreturn void serve(void)
{
	static struct epoll_event events[EVENTS];

	turn.quiet = clock_of(CLOCK_MONOTONIC);
	take_over(turn.quiet);
	for (;;) {
		const int64_t time = settle(clock_of(CLOCK_MONOTONIC));
		const long count = wait_for_events(events, time);
		const int64_t now = clock_of(CLOCK_MONOTONIC);

		for (long i = 0; i < count; i++)
			take_event(events + i, now);
		if (count == 0 && now >= end_of_linger())
			leave(0);
	}
}

__attribute__((used)) _Noreturn void start(long *stack)
{
	const char **words = (const char **)(stack + 1);

	begin_report(LOG);
	if (stack[0] != 2)
		leave(EXIT_CHILD_FAILED);
	prctl(PR_SET_NAME, (long)"acceptor", 0);
	take_options(number_of(words[1]));
	take_plan();
	take_environment_of(words + stack[0] + 1);
	map_table(options->table);
	map_denied(options->denied);
	read_banner(&banner, options->banner);
	read_banner(&refused_banner, options->refused_banner);
	take_descriptors();
	model.umask = call(__NR_umask, 022, 0, 0, 0); // for cgroups
	begin_events();
	if (!keep_memory())
		must(-ENOMEM);
	serve();
}
