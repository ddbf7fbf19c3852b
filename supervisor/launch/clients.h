// Clients until they have a session: the limits, those that wait, those that are refused.
#pragma once

#include "sessions.h"

enum {
	MOST_HELD = 64,
	MOST_CLOSING = 64,
	MOST_READS = 512, // 8 MiB, more than a queue takes
	SHUT_WR_ = 1,
	IPPROTO_TCP_ = 6,
	TCP_NODELAY_ = 1,
};

#define LOOK_AGAIN SECOND // at load and memory
#define CLOSING_TIME SECOND // for a client to read its banner

struct banner {
	char text[LARGEST_OPENED];
	size_t size;
};

static struct banner banner APART, refused_banner APART;

// Accepted connections that wait for a free slot, the first one for longest. If sources have limits, each has at most
// one here.
static struct {
	struct client {
		int connection;
		struct peer peer;
		uint8_t source[KEY];
	} clients[MOST_HELD];
	uint32_t count;
} held APART;

// Refused connections whose clients may still read the banner.
static struct {
	struct closing {
		int connection, is_unix;
		int64_t until;
	} connections[MOST_CLOSING];
	uint32_t first, count;
} refused APART;

static struct {
	int64_t looked_until; // at load and memory
	enum rule found;
	int64_t again; // the time at which the present limit may be over
} host;

static void read_banner(struct banner *found, long fd)
{
	if (fd < 0)
		return;
	found->size = (size_t)must(call(__NR_pread64, fd, (long)found->text, LARGEST_OPENED, 0));
	close_fd(fd);
}

static void send_banner(int connection, const struct banner *found)
{
	if (found->size > 0) // a client that does not take it has left
		call_six(__NR_sendto, connection, (long)found->text, (long)found->size, MSG_DONTWAIT_ | MSG_NOSIGNAL_, 0, 0);
}

static int64_t available_memory(void)
{
	static char text[4096] APART;
	static const char name[] = "\nMemAvailable:";
	const long size = must(call(__NR_pread64, (long)options->memory, (long)text, sizeof text - 1, 0));
	const char *next = text;

	text[size] = '\0';
	while (*next && !is_same(next, name, sizeof name - 1))
		next++;
	while (*next && (*next < '0' || *next > '9'))
		next++;
	return number_of(next) * 1024;
}

static enum rule look_at_host(int64_t now)
{
	struct sysinfo info;

	if (options->load_max < 0 && options->memory_min < 0)
		return NO_RULE;
	if (now < host.looked_until)
		return host.found;
	host.looked_until = now + LOOK_AGAIN;
	must(call(__NR_sysinfo, (long)&info, 0, 0, 0));
	if (options->load_max >= 0 && (int64_t)info.loads[0] > options->load_max)
		host.found = LOAD_MAX;
	else
		host.found = options->memory_min >= 0 && available_memory() < options->memory_min ? MEMORY_MIN : NO_RULE;
	return host.found;
}

// The limit for all clients that lets none in now.
static enum rule full(int64_t now)
{
	const int64_t rate = rate_begins(table->header.rate, options->burst);
	enum rule rule;

	host.again = INT64_MAX;
	if (table->header.sessions >= (uint64_t)options->max)
		return MAX;
	if (options->rate && rate > now) {
		host.again = rate;
		return RATE;
	}
	if ((rule = look_at_host(now)) != NO_RULE)
		host.again = host.looked_until;
	return rule;
}

static uint32_t held_of(const uint8_t *key)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < held.count; i++)
		count += (uint32_t)is_same((const char *)held.clients[i].source, (const char *)key, KEY);
	return count;
}

// The limits for each source. A start that they permit counts.
static enum rule limit_source(const uint8_t *key, int64_t now)
{
	struct timed_key *place;
	int is_found;

	if (options->per_source && sessions_of(key) + held_of(key) >= (uint64_t)options->per_source)
		return PER_SOURCE;
	if (!options->source_rate)
		return NO_RULE;
	place = place_of(table->sources, key, table->header.seed, &is_found);
	if (!is_found) {
		copy(place->key, key, KEY);
		place->time = 0;
	}
	if (rate_begins(place->time, options->source_burst) > now)
		return SOURCE_RATE;
	place->time = use_rate(place->time, options->source_rate, now);
	return NO_RULE;
}

static int has_limits_of_sources(void)
{
	return options->per_source || options->source_rate;
}

static void let_in(int connection, const struct peer *peer, int64_t now)
{
	if (options->nodelay && peer->family != UNIX)
		set_option(connection, IPPROTO_TCP_, TCP_NODELAY_, 1);
	if (options->keepalive)
		set_option(connection, SOL_SOCKET, SO_KEEPALIVE, 1);
	send_banner(connection, &banner);
	if (options->rate)
		table->header.rate = use_rate(table->header.rate, options->rate, now);
	start_session(connection, peer, now);
}

// Close without a reset: what the client has sent is taken first, unless it goes on and on.
static void close_first(void)
{
	const struct closing *first = &refused.connections[refused.first];
	long size = sizeof unused_data;

	for (int i = 0; !first->is_unix && i < MOST_READS && size == sizeof unused_data; i++)
		size = call_six(__NR_recvfrom, first->connection, (long)unused_data, sizeof unused_data, MSG_DONTWAIT_, 0, 0);
	close_connection(first->connection, first->is_unix);
	refused.first = (refused.first + 1) % MOST_CLOSING;
	refused.count--;
}

static void close_after_banner(int connection, int is_unix, int64_t now)
{
	send_banner(connection, &refused_banner);
	call(__NR_shutdown, connection, SHUT_WR_, 0, 0);
	if (refused.count == MOST_CLOSING)
		close_first();
	refused.connections[(refused.first + refused.count++) % MOST_CLOSING] =
		(struct closing){ connection, is_unix, now + CLOSING_TIME };
}

static void refuse_client(int connection, const struct peer *peer, enum rule rule, int64_t now)
{
	struct refusal *refusal = &table->header.refusal;

	add(&table->header.refused[rule], 1);
	begin_change(&refusal->changes);
	refusal->rule = rule;
	refusal->time = clock_of(CLOCK_REALTIME);
	refusal->peer = *peer;
	end_change(&refusal->changes);
	say_refused(peer, rule, now);
	if (refused_banner.size > 0)
		close_after_banner(connection, peer->family == UNIX, now);
	else
		close_connection(connection, peer->family == UNIX);
}

static void hold_client(int connection, const struct peer *peer, const uint8_t *key)
{
	struct client *client = &held.clients[held.count++];

	client->connection = connection;
	client->peer = *peer;
	copy(client->source, key, KEY);
	set(&table->header.held, held.count);
}

static void serve_held(int64_t now)
{
	while (held.count > 0 && full(now) == NO_RULE) {
		const struct client client = held.clients[0];

		held.count--;
		copy(held.clients, held.clients + 1, held.count * sizeof *held.clients);
		set(&table->header.held, held.count);
		let_in(client.connection, &client.peer, now);
	}
}

// Let a client in, refuse it, or hold it. Clients are held only where some are refused meanwhile.
static void admit(int connection, const struct peer *peer, int64_t now)
{
	uint8_t key[KEY];
	enum rule rule = judge(peer, connection, now), limit;

	add(&table->header.accepted, 1);
	make_key(key, peer, (unsigned int)options->v4_bits, (unsigned int)options->v6_bits);
	if (rule == NO_RULE)
		rule = limit_source(key, now);
	limit = full(now);
	if (rule == NO_RULE && limit != NO_RULE) {
		if (!options->refuses && held.count < MOST_HELD && !(has_limits_of_sources() && held_of(key))) {
			hold_client(connection, peer, key);
			return;
		}
		rule = limit;
	}
	if (rule != NO_RULE)
		refuse_client(connection, peer, rule, now);
	else
		let_in(connection, peer, now);
}

// Whether clients are accepted now. While they have to wait, they are accepted only to refuse some of them.
static int wants_clients(int64_t now)
{
	if (closers.count >= MOST_LEFT_OPEN)
		return 0;
	if (full(now) == NO_RULE || options->refuses)
		return 1;
	return (has_rules() || has_limits_of_sources()) && held.count < MOST_HELD;
}
