// The table of an acceptor: counters, and a slot for each session. It is a memfd in spawnd's store, which spawnd reads
// at any time, and which the next acceptor continues: `docs/design/accept.md`.
//
// A part that has `changes` is being written while that number is odd.
#pragma once

#include <linux/time.h>
#include <linux/time_types.h>

#include "options.h"

enum {
	TABLE_MAGIC = 0x4c425441,
	TABLE_VERSION = 1,
	MOST_SESSIONS = 16384,
	WAYS = 8, // places where an address may be in a table of addresses
	ADDRESSES = 4096, // in such a table
	KEY = 16, // bytes
};

// Reasons for a refusal, as in `acceptor.py`.
enum rule {
	NO_RULE,
	NO_ACCESS, ONLY_FROM, HOURS, TRAP, DENIED,
	PER_SOURCE, SOURCE_RATE,
	MAX, RATE, LOAD_MAX, MEMORY_MIN,
	RULES,
};

enum family { V4 = 4, V6 = 6, UNIX = 1 };

struct peer {
	uint16_t family, port;
	uint32_t uid, gid;
	int32_t pid; // the last three for Unix sockets
	uint8_t address[16]; // an IPv4 address is mapped
};

struct session {
	uint32_t changes;
	int32_t pid; // 0: the slot is free, or its process has not begun
	uint64_t number;
	int64_t from, to; // bounds of the start of the process, since the boot
	int64_t since; // the epoch
	struct peer peer;
	uint32_t is_inherited;
	uint32_t cgroup; // its number, or 0
};

struct refusal {
	uint32_t changes, rule;
	int64_t time;
	struct peer peer;
};

struct trouble {
	uint32_t changes;
	int32_t number; // an errno
	uint64_t count;
	int64_t time;
	uint64_t size; // of the report
};

struct timed_key { // an address, and the time up to which something holds
	uint8_t key[KEY];
	int64_t time;
};

struct header {
	uint32_t magic, version, slots, used; // slots that have been used: these are the first ones
	uint64_t generation; // of acceptors
	uint64_t seed; // of hashes
	uint64_t accepted, started, ended, sessions, held;
	uint64_t refused[RULES];
	uint64_t lost_lines;
	int64_t last_start; // since the epoch
	int64_t rate; // the time that starts have used up, monotonic
	struct refusal refusal;
	struct trouble trouble;
	uint64_t limit; // the rule for all clients that lets none in now
};

struct table {
	union {
		struct header header;
		char page[4096];
	};
	char report[1 << 15]; // of the last trouble
	struct timed_key sources[ADDRESSES];
	struct session slots[MOST_SESSIONS];
};

static struct table *table;
static uint64_t generation; // of this acceptor

static void begin_change(uint32_t *changes)
{
	__atomic_store_n(changes, *changes | 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void end_change(uint32_t *changes)
{
	__atomic_store_n(changes, *changes + 1, __ATOMIC_RELEASE);
}

static void set(uint64_t *place, uint64_t value)
{
	__atomic_store_n(place, value, __ATOMIC_RELAXED);
}

static void add(uint64_t *place, int64_t more)
{
	set(place, *place + (uint64_t)more);
}

static void map_table(long fd)
{
	table = (struct table *)must(call_six(__NR_mmap, 0, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close_fd(fd);
	if (table->header.magic != TABLE_MAGIC || table->header.version != TABLE_VERSION ||
	    table->header.slots != MOST_SESSIONS || table->header.used > MOST_SESSIONS)
		fail_without_plan();
	generation = table->header.generation + 1;
	__atomic_store_n(&table->header.generation, generation, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static uint64_t word_of(const uint8_t *bytes)
{
	uint64_t word;

	copy(&word, bytes, sizeof word);
	return word;
}

static uint32_t hash_of(const uint8_t *key, uint64_t seed)
{
	uint64_t hash = (word_of(key) ^ seed) * 0x9e3779b97f4a7c15;

	hash = (hash ^ hash >> 29 ^ word_of(key + 8)) * 0xbf58476d1ce4e5b9;
	hash = (hash ^ hash >> 32 ^ seed >> 7) * 0x94d049bb133111eb;
	return (uint32_t)(hash >> 32);
}

// Return the place of a key, or else the place that is given up for it: that with the earliest time. `is_found` says
// which.
static struct timed_key *place_of(struct timed_key *keys, const uint8_t *key, uint64_t seed, int *is_found)
{
	struct timed_key *first = keys + (hash_of(key, seed) & (ADDRESSES - 1) & ~(uint32_t)(WAYS - 1)), *oldest = first;

	for (struct timed_key *place = first; place < first + WAYS; place++) {
		if (is_same((const char *)place->key, (const char *)key, KEY)) {
			*is_found = 1;
			return place;
		}
		if (place->time < oldest->time)
			oldest = place;
	}
	*is_found = 0;
	return oldest;
}

static int64_t clock_of(int clock)
{
	struct __kernel_timespec time;

	call(__NR_clock_gettime, clock, (long)&time, 0, 0);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}
