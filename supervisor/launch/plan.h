// A plan: the operations that turn a process into a service, in the order of their execution.
//
// It begins with a header. Each operation has numbers of 64 bits, and strings terminated by NUL: step and path for the
// report of a failure, the cause to report for the errno `refused`, and then the parameters of its kind.
// `operations.py` writes the plan in native byte order. The whole plan is checked before any operation is executed.
#pragma once

#include <linux/errno.h>
#include <linux/filter.h>
#include <linux/limits.h>
#include <linux/sched.h>
#include <linux/seccomp.h>

#include "text.h"

enum { PLAN_MAGIC = 0x4e4c5053, PLAN_VERSION = 3, PLAN_LARGEST = 1 << 26 };
enum { STEP, PATH, CAUSE, LABELS }; // strings of each operation

struct plan {
	uint32_t magic, version, size, count;
};

struct operation {
	uint16_t kind, refused;
	uint32_t number_count, string_count, size; // bytes with this, a multiple of 8
	uint64_t numbers[];
};

enum kind {
	UNDUMPABLE, SESSION, SIGNALS,
	CLOSE, RECEIVE, OPEN, OPEN_FILE, MOVE, LOOK, LOOKED, TRUNCATE, REWIND,
	WRITE, NICE, AFFINITY, SCHEDULING, IO_PRIORITY, TIMER_SLACK, LIMIT,
	ENVIRONMENT, OWN_PID, OWN_START, ENV_FILE,
	ENTER_NAMESPACE, JOIN_NAMESPACE, MAKE_NAMESPACES,
	IF_EXISTS, MOUNT_NAMESPACE, MOUNT,
	CHROOT,
	KEYRING, BOUNDING_SET, KEEP_CAPABILITIES, GROUPS, GID, UID, CAPABILITIES, AMBIENT_CAPABILITY,
	FOLDER, UMASK, BINDING_LIMIT,
	GO,
	NO_NEW_PRIVS,
	RULESET, PATH_RULE, DESCRIPTOR_RULE, RESTRICT,
	FILTER,
	EXECUTE,
	EXECUTE_DESCRIPTOR,
	KINDS,
};

// Processes that carry out a plan: a forked worker, a service, and a session of a service's acceptor.
enum user { WORKER, SERVICE, SESSION_OF_SERVICE };

// A session inherits everything else from its acceptor, or would share the change with it.
static const uint64_t kinds_of_sessions =
	1ull << SESSION | 1ull << SIGNALS | 1ull << CLOSE | 1ull << MOVE | 1ull << LIMIT | 1ull << ENVIRONMENT |
	1ull << OWN_PID | 1ull << BINDING_LIMIT | 1ull << NO_NEW_PRIVS | 1ull << RULESET | 1ull << PATH_RULE |
	1ull << DESCRIPTOR_RULE | 1ull << RESTRICT | 1ull << FILTER | 1ull << EXECUTE;

enum { EXPANDS = 1, HAS_ARGV0 = 2 }; // flags of EXECUTE: expand variables; argv[0] follows the path

// valid values of a number
enum value { ANY, DESCRIPTOR, ID, RESOURCE, SIZE_OF_REST, NAMESPACE, NAMESPACES, FILTER_FLAGS };

enum {
	MANY = 1 << 22,
	ANY_NAMESPACES = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
	ANY_FILTER_FLAGS = SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW, // others return a descriptor, or wait
};

// A kind takes from `fixed` to `most` numbers with the listed values; further numbers are like the last listed one.
struct shape {
	uint8_t phase, fixed, values[3];
	uint32_t most;
	uint16_t strings; // in addition to the labels; MANY_STRINGS: one or more
};

enum { MANY_STRINGS = 0xffff };

static const struct shape shapes[KINDS] = {
	[UNDUMPABLE] = { 1, 0, { ANY }, 0, 0 },
	[SESSION] = { 2, 0, { ANY }, 0, 0 },
	[SIGNALS] = { 2, 2, { ANY }, 2, 0 }, // whether they are unblocked; those to be reset, as a set of bits
	[CLOSE] = { 3, 0, { ANY }, MANY, 0 }, // first and last of each range
	[RECEIVE] = { 3, 0, { DESCRIPTOR, DESCRIPTOR, DESCRIPTOR }, MANY, 0 }, // the numbers that they get
	[OPEN] = { 3, 1, { DESCRIPTOR }, 1, 0 }, // the number that it gets
	[OPEN_FILE] = { 3, 4, { DESCRIPTOR, ANY, ID }, MANY, 0 }, // the number that it gets; rights
	[MOVE] = { 3, 0, { DESCRIPTOR, DESCRIPTOR, DESCRIPTOR }, MANY, 0 }, // from, to, from, to, …
	[LOOK] = { 3, 5, { DESCRIPTOR, ANY }, 5, 1 }, // slot, major, minor, inode, whether it is a socket; its folder
	[LOOKED] = { 3, 0, { ANY }, 0, 0 },
	[TRUNCATE] = { 3, 1, { DESCRIPTOR }, 1, 0 },
	[REWIND] = { 3, 1, { DESCRIPTOR }, 1, 0 },
	[WRITE] = { 4, 0, { ANY }, 0, 1 }, // the text
	[NICE] = { 4, 1, { ANY }, 1, 0 },
	[AFFINITY] = { 4, 1, { ANY }, MANY, 0 }, // processors
	[SCHEDULING] = { 4, 2, { ANY }, 2, 0 }, // policy, priority
	[IO_PRIORITY] = { 4, 1, { ANY }, 1, 0 },
	[TIMER_SLACK] = { 4, 1, { ANY }, 1, 0 },
	[LIMIT] = { 4, 3, { RESOURCE, ANY }, 3, 0 }, // resource, soft, hard
	[ENVIRONMENT] = { 5, 0, { ANY }, 0, MANY_STRINGS }, // NAME=value
	[OWN_PID] = { 5, 0, { ANY }, 0, 1 }, // the name of the variable
	[OWN_START] = { 5, 0, { ANY }, 0, 1 },
	[ENV_FILE] = { 5, 4, { ANY, ANY, ID }, MANY, 0 }, // whether it need not exist, then rights
	[ENTER_NAMESPACE] = { 6, 1, { NAMESPACE }, 1, 0 }, // its type
	[JOIN_NAMESPACE] = { 6, 2, { DESCRIPTOR, NAMESPACE }, 2, 0 }, // the descriptor, which is closed, and its type
	[MAKE_NAMESPACES] = { 6, 1, { NAMESPACES }, 1, 0 }, // their types
	[IF_EXISTS] = { 7, 1, { SIZE_OF_REST }, 1, 0 }, // the operations to be left out where the path does not exist
	[MOUNT_NAMESPACE] = { 7, 0, { ANY }, 0, 0 },
	[MOUNT] = { 7, 1, { ANY }, 1, 4 }, // flags; source, target, type and options
	[CHROOT] = { 8, 3, { ANY, ID, ID }, MANY, 0 }, // rights: whether there are any, uid, gid, groups
	[KEYRING] = { 9, 0, { ANY }, 0, 0 },
	[BOUNDING_SET] = { 9, 1, { ANY }, 1, 0 }, // what stays, as a set of bits
	[KEEP_CAPABILITIES] = { 9, 0, { ANY }, 0, 0 },
	[GROUPS] = { 9, 0, { ID, ID, ID }, NGROUPS_MAX, 0 },
	[GID] = { 9, 1, { ID }, 1, 0 },
	[UID] = { 9, 1, { ID }, 1, 0 },
	[CAPABILITIES] = { 9, 1, { ANY }, 1, 0 }, // all of them, as a set of bits
	[AMBIENT_CAPABILITY] = { 9, 1, { ANY }, 1, 0 },
	[FOLDER] = { 10, 3, { ANY, ID, ID }, MANY, 0 }, // rights
	[UMASK] = { 10, 1, { ANY }, 1, 0 },
	[BINDING_LIMIT] = { 10, 3, { RESOURCE, ANY }, 3, 0 },
	[GO] = { 11, 0, { ANY }, 0, 0 },
	[NO_NEW_PRIVS] = { 12, 0, { ANY }, 0, 0 },
	[RULESET] = { 13, 3, { ANY }, 3, 0 }, // accesses to files and ports that need a rule, and scopes: Landlock
	[PATH_RULE] = { 14, 1, { ANY }, 1, 0 }, // accesses that stay possible at the path and below it
	[DESCRIPTOR_RULE] = { 14, 2, { DESCRIPTOR, ANY }, 2, 0 }, // the same at the file of a descriptor
	[RESTRICT] = { 15, 0, { ANY }, 0, 0 },
	[FILTER] = { 16, 2, { FILTER_FLAGS, ANY }, 1 + BPF_MAXINSNS, 0 }, // flags, then struct sock_filter: seccomp(2)
	[EXECUTE] = { 17, 1, { ANY }, 1, MANY_STRINGS }, // flags; the path, arguments
	[EXECUTE_DESCRIPTOR] = { 17, 1, { DESCRIPTOR }, 1, MANY_STRINGS }, // the program, which is closed; arguments
};

static const struct operation *first_operation(const struct plan *plan)
{
	return (const struct operation *)(plan + 1);
}

static const struct operation *next_operation(const struct operation *operation)
{
	return (const struct operation *)((const char *)operation + operation->size);
}

static const char *next_string(const char *string)
{
	return string + length_of(string) + 1;
}

static const char *string_of(const struct operation *operation, unsigned int number)
{
	const char *string = (const char *)(operation->numbers + operation->number_count);

	while (number-- > 0)
		string = next_string(string);
	return string;
}

static int is_valid(enum value value, uint64_t number, uint32_t rest)
{
	switch (value) {
	case ANY:
		return 1;
	case DESCRIPTOR:
		return number <= INT32_MAX;
	case ID: // the last one stands for no change
		return number < UINT32_MAX;
	case RESOURCE:
		return number < 16;
	case SIZE_OF_REST:
		return number < rest;
	case NAMESPACE:
		return number == CLONE_NEWNET || number == CLONE_NEWIPC || number == CLONE_NEWUTS;
	case NAMESPACES:
		return number != 0 && !(number & ~(uint64_t)ANY_NAMESPACES);
	case FILTER_FLAGS:
		return !(number & ~(uint64_t)ANY_FILTER_FLAGS);
	}
	return 0;
}

static int has_valid_numbers(const struct operation *operation, const struct shape *shape, uint32_t rest)
{
	const uint32_t count = operation->number_count;
	enum value value = ANY;

	if (count < shape->fixed || count > shape->most)
		return 0;
	if ((operation->kind == MOVE || operation->kind == CLOSE) && count % 2)
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		if (i < sizeof shape->values)
			value = shape->values[i];
		if (!is_valid(value, operation->numbers[i], rest))
			return 0;
	}
	return 1;
}

// Whether the bytes after the numbers are this number of strings, plus fewer than 8 bytes of padding.
static int has_valid_strings(const struct operation *operation, const struct shape *shape)
{
	const size_t begins = sizeof *operation + 8 * (size_t)operation->number_count;
	const char *next = (const char *)operation + begins, *end = (const char *)operation + operation->size;
	const int has_argv0 = operation->kind == EXECUTE && operation->numbers[0] & HAS_ARGV0;
	const uint32_t wanted = LABELS + (shape->strings == MANY_STRINGS ? 1 + has_argv0 : shape->strings);

	if (operation->string_count < wanted || (shape->strings != MANY_STRINGS && operation->string_count > wanted))
		return 0;
	for (uint32_t i = 0; i < operation->string_count; i++) {
		int is_assignment = 0;

		while (next < end && *next)
			is_assignment |= *next++ == '=';
		if (next == end || (operation->kind == ENVIRONMENT && i >= LABELS && !is_assignment))
			return 0;
		next++;
	}
	if (end - next >= 8)
		return 0;
	while (next < end)
		if (*next++)
			return 0;
	return 1;
}

static int is_valid_operation(const struct operation *operation, size_t left, uint32_t rest)
{
	if (left < sizeof *operation || operation->size < sizeof *operation || operation->size > left)
		return 0;
	if (operation->size % 8 || operation->kind >= KINDS || operation->refused > 4095)
		return 0;
	if (operation->number_count > (operation->size - sizeof *operation) / 8)
		return 0;
	return has_valid_numbers(operation, &shapes[operation->kind], rest) &&
	       has_valid_strings(operation, &shapes[operation->kind]);
}

// Whether the operations that may be skipped belong to the phase of the operation that skips them.
static int ends_in_phase(const struct operation *operation)
{
	const struct operation *last = operation;

	for (uint64_t i = 0; i < operation->numbers[0]; i++)
		last = next_operation(last);
	return shapes[last->kind].phase == shapes[operation->kind].phase;
}

// Whether the operations make sense together: a plan waits for spawnd once, and executes one program, but none in a
// worker. That of a session does not wait, and has a process group of its own. Each rule belongs to the one rule set,
// which comes into force. A program that is confined gains no privileges, and only a program that is executed by its
// path is put under a filter.
static int is_complete(const uint32_t *counts, enum user user)
{
	const uint32_t rules = counts[PATH_RULE] + counts[DESCRIPTOR_RULE];

	if (counts[GO] != (user != SESSION_OF_SERVICE) || (counts[FILTER] && !counts[EXECUTE]))
		return 0;
	if (user == SESSION_OF_SERVICE && counts[SESSION] != 1)
		return 0;
	if (counts[EXECUTE] + counts[EXECUTE_DESCRIPTOR] != (user != WORKER))
		return 0;
	if (counts[RULESET] > 1 || counts[RESTRICT] != counts[RULESET] || (rules && !counts[RULESET]))
		return 0;
	return counts[NO_NEW_PRIVS] || !(counts[RESTRICT] || counts[FILTER]);
}

static int may_have(enum user user, unsigned int kind)
{
	return user != SESSION_OF_SERVICE || kinds_of_sessions >> kind & 1;
}

// Whether a plan for this user is valid as a whole, so that no operation reads beyond its bytes.
static int is_plan(const struct plan *plan, size_t size, enum user user)
{
	uint32_t counts[KINDS] = { 0 };
	const struct operation *operation;
	size_t left = size - sizeof *plan;
	unsigned int phase = 0;

	if (size < sizeof *plan || size > PLAN_LARGEST || plan->magic != PLAN_MAGIC || plan->version != PLAN_VERSION)
		return 0;
	if (plan->size != size || plan->count == 0)
		return 0;
	operation = first_operation(plan);
	for (uint32_t i = 0; i < plan->count; i++, operation = next_operation(operation)) {
		if (!is_valid_operation(operation, left, plan->count - i) || shapes[operation->kind].phase < phase)
			return 0;
		if (!may_have(user, operation->kind))
			return 0;
		phase = shapes[operation->kind].phase;
		left -= operation->size;
		counts[operation->kind]++;
	}
	if (left || !is_complete(counts, user))
		return 0;
	operation = first_operation(plan);
	for (uint32_t i = 0; i < plan->count; i++, operation = next_operation(operation))
		if (operation->kind == IF_EXISTS && !ends_in_phase(operation))
			return 0;
	return 1;
}
