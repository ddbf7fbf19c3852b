// Rules on who may connect and when: they depend on the client and the time only.
#pragma once

#include <linux/sysinfo.h>

#include "lines.h"

enum { DENIED_MAGIC = 0x324e4544, MINUTES_OF_WEEK = 7 * 24 * 60, FIRST_WEEKDAY = 3 };

// Addresses that have connected to a trap, of all services. Traps alone can write to it: `docs/design/accept.md`.
struct denied {
	uint32_t magic, is_used; // whether a trap has had a client
	uint64_t seed;
	uint8_t boot[16]; // the boot whose clock counts
	struct timed_key keys[ADDRESSES];
};

static struct denied *denied;

static void map_denied(long fd)
{
	const int access = options->is_trap ? PROT_READ | PROT_WRITE : PROT_READ;

	if (fd < 0)
		return;
	denied = (struct denied *)must(call_six(__NR_mmap, 0, sizeof *denied, access, MAP_SHARED, fd, 0));
	close_fd(fd);
	if (denied->magic != DENIED_MAGIC)
		fail_without_plan();
}

static int is_in_network(const struct peer *peer, const struct entry *entry)
{
	const unsigned int bytes = entry->bits_or_id / 8, bits = entry->bits_or_id % 8;
	const uint8_t mask = (uint8_t)(0xff00 >> bits);

	if (bytes >= 16)
		return is_same((const char *)peer->address, (const char *)entry->address, 16);
	return is_same((const char *)peer->address, (const char *)entry->address, bytes) &&
	       (peer->address[bytes] & mask) == (entry->address[bytes] & mask);
}

// Whether the client belonged to the group when it connected.
static int is_in_group(const struct peer *peer, uint32_t id, int connection)
{
	static uint32_t groups[NGROUPS_MAX] APART;
	uint32_t size = sizeof groups;

	if (peer->gid == id)
		return 1;
	if (call_six(__NR_getsockopt, connection, SOL_SOCKET, SO_PEERGROUPS, (long)groups, (long)&size, 0) < 0)
		return 0;
	for (uint32_t i = 0; i < size / sizeof *groups; i++)
		if (groups[i] == id)
			return 1;
	return 0;
}

static int matches(const struct entry *entry, const struct peer *peer, int connection)
{
	switch ((enum subject)entry->subject) {
	case NETWORK_V4:
		return peer->family == V4 && is_in_network(peer, entry);
	case NETWORK_V6:
		return peer->family == V6 && is_in_network(peer, entry);
	case USER:
		return peer->family == UNIX && peer->uid == entry->bits_or_id;
	case GROUP:
		return peer->family == UNIX && is_in_group(peer, entry->bits_or_id, connection);
	}
	return 0;
}

static enum rule look_for_entry(const struct peer *peer, int connection)
{
	const struct entry *entries = items(options->entries);

	for (uint32_t i = 0; i < options->entries.count; i++)
		if (matches(entries + i, peer, connection))
			return entries[i].is_allowed ? NO_RULE : NO_ACCESS;
	return options->is_closed ? ONLY_FROM : NO_RULE;
}

static int64_t offset_at(int64_t second)
{
	const struct zone_change *changes = items(options->zone);
	int64_t offset = 0;

	for (uint32_t i = 0; i < options->zone.count && changes[i].since <= second; i++)
		offset = changes[i].offset;
	return offset;
}

static int is_within_hours(void)
{
	const struct hours *hours = items(options->hours);
	const int64_t second = clock_of(CLOCK_REALTIME) / SECOND;
	const int64_t minute = ((second + offset_at(second)) / 60 + FIRST_WEEKDAY * 24 * 60) % MINUTES_OF_WEEK;

	for (uint32_t i = 0; i < options->hours.count; i++)
		if (hours[i].from <= minute && minute < hours[i].to)
			return 1;
	return options->hours.count == 0;
}

// Every acceptor has the table, as a trap may come later.
static int has_traps(void)
{
	return denied && (options->is_trap || __atomic_load_n(&denied->is_used, __ATOMIC_RELAXED));
}

static int is_denied(const uint8_t *key, int64_t now)
{
	int is_found;
	const struct timed_key *place = place_of(denied->keys, key, denied->seed, &is_found);

	return is_found && __atomic_load_n(&place->time, __ATOMIC_ACQUIRE) > now;
}

// A shorter denial neither shortens a longer one nor takes its place. The key changes while its time has passed. Two
// traps that write to one place at once may mix up two of their clients.
static void deny(const uint8_t *key, int64_t until)
{
	int is_found;
	struct timed_key *place = place_of(denied->keys, key, denied->seed, &is_found);

	if (__atomic_load_n(&place->time, __ATOMIC_RELAXED) >= until)
		return;
	if (!is_found) {
		__atomic_store_n(&place->time, 0, __ATOMIC_SEQ_CST);
		copy(place->key, key, KEY);
	}
	__atomic_store_n(&place->time, until, __ATOMIC_RELEASE);
	__atomic_store_n(&denied->is_used, 1, __ATOMIC_RELEASE);
}

// A client that the lists refuse is not trapped, so that `no_access` of a trap protects addresses.
static enum rule judge(const struct peer *peer, int connection, int64_t now)
{
	enum rule rule = look_for_entry(peer, connection);
	uint8_t key[KEY];

	if (rule == NO_RULE && !is_within_hours())
		rule = HOURS;
	if (rule != NO_RULE || !has_traps() || peer->family == UNIX)
		return rule;
	make_key(key, peer, 32, 64);
	if (options->is_trap) {
		deny(key, now + options->denial);
		return TRAP;
	}
	return is_denied(key, now) ? DENIED : NO_RULE;
}

static int has_rules(void)
{
	return options->entries.count || options->is_closed || options->hours.count || has_traps();
}
