// Options of an acceptor: numbers and lists, written by `acceptor.py` in native byte order, in a sealed memfd.
//
// Times are nanoseconds. The memory comes from spawnd; the check finds another version, and lists beyond the end.
#pragma once

#include "freestanding.h"

enum {
	OPTIONS_MAGIC = 0x50434341,
	OPTIONS_VERSION = 2,
	OPTIONS_LARGEST = 1 << 22,
};

enum logged { NOTHING, FAILURES, EVERYTHING };

struct list {
	uint32_t begin, count;
};

enum subject { NETWORK_V4, NETWORK_V6, USER, GROUP };

// An entry of the access lists. IPv4 addresses are mapped to IPv6: their prefix has at least 96 bits.
struct entry {
	uint16_t subject, is_allowed;
	uint32_t bits_or_id;
	uint8_t address[16];
};

struct hours {
	int64_t from, to; // minutes of the week in local time, which begins on Monday
};

struct zone_change {
	int64_t since, offset; // seconds
};

struct options {
	uint32_t magic, version, size, unused;
	int64_t plan, table, denied, banner, refused_banner, memory, processes, sessions; // descriptors, or -1
	int64_t max, per_source, v4_bits, v6_bits; // per_source: 0 for no limit
	int64_t rate, burst, source_rate, source_burst; // time for each start, and time that may be used in advance
	int64_t load_max, memory_min; // 1/65536 and bytes, or -1
	int64_t refuses, is_trap, denial;
	int64_t session_timeout, stop_signal, stop_timeout; // 0: no timeout
	int64_t nodelay, keepalive;
	int64_t linger, logged; // -1: for good
	int64_t is_closed; // whether clients without an entry are refused
	struct list listeners; // int64_t
	struct list entries; // the first one that matches decides
	struct list hours; // none: always
	struct list zone; // ascending
	struct list errors; // the texts for errnos from 0 on
	struct list limits; // bytes: a file of the cgroup of each session and its content, again and again
};

static const struct options *options;

static const void *items(struct list list)
{
	return (const char *)options + list.begin;
}

static int is_inside(const struct options *found, struct list list, size_t item)
{
	return list.begin % 8 == 0 && list.begin <= found->size && list.count <= (found->size - list.begin) / item;
}

static void take_options(long fd)
{
	size_t size;
	const struct options *found = read_sealed(fd, OPTIONS_LARGEST, &size);

	if (size < sizeof *found || found->magic != OPTIONS_MAGIC || found->version != OPTIONS_VERSION ||
	    found->size != size || ((const char *)found)[size - 1])
		fail_without_plan();
	if (!is_inside(found, found->listeners, sizeof(int64_t)) ||
	    !is_inside(found, found->entries, sizeof(struct entry)) ||
	    !is_inside(found, found->hours, sizeof(struct hours)) ||
	    !is_inside(found, found->zone, sizeof(struct zone_change)) || !is_inside(found, found->errors, 1) ||
	    !is_inside(found, found->limits, 1))
		fail_without_plan();
	options = found;
}

static const char *error_text(long number)
{
	const char *text = items(options->errors);

	if (number < 0 || number >= options->errors.count)
		return "unknown error";
	while (number-- > 0)
		text = next_string(text);
	return text;
}
