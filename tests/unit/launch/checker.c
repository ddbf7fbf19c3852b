// The checker of plans for a fuzzer, and for tests: it reads plans, each after its size, and says which are plans.
//
// A plan that is taken is read as far as it is read when it is carried out: beyond its bytes are none.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

static size_t sink;

// Bounds that every plan keeps, said in another way than by the checker.
static void check_meaning(const struct plan *plan, enum user user)
{
	const struct operation *operation = first_operation(plan);
	int waits = 0, sessions = 0, is_bound = 0, has_rules = 0, is_filtered = 0, executes = 0;

	for (uint32_t i = 0; i < plan->count; i++, operation = next_operation(operation)) {
		const uint64_t first = operation->number_count ? operation->numbers[0] : 0;

		if (executes)
			abort();
		if (user == SESSION_OF_SERVICE &&
		    (operation->kind == UNDUMPABLE || operation->kind == RECEIVE || operation->kind == ENV_FILE ||
		     operation->kind == UID || operation->kind == CHROOT || operation->kind == EXECUTE_DESCRIPTOR))
			abort();
		switch (operation->kind) {
		case SESSION:
			sessions++;
			break;
		case GO:
			waits++;
			break;
		case NO_NEW_PRIVS:
			is_bound = waits || user == SESSION_OF_SERVICE;
			break;
		case MAKE_NAMESPACES:
			if (first == 0 || first & ~0x4c000000ull)
				abort();
			break;
		case RULESET:
			has_rules++;
			break;
		case PATH_RULE:
		case DESCRIPTOR_RULE:
			if (has_rules != 1)
				abort();
			break;
		case RESTRICT:
			if (has_rules++ != 1 || !is_bound)
				abort();
			break;
		case FILTER:
			is_filtered = 1;
			if (user == WORKER || !is_bound || has_rules == 1 || first & ~6ull || operation->number_count > 4097 ||
			    operation->number_count < 2)
				abort();
			break;
		case EXECUTE_DESCRIPTOR:
			if (is_filtered)
				abort();
			executes = 1;
			break;
		case EXECUTE:
			if (first & HAS_ARGV0 && operation->string_count < LABELS + 2)
				abort();
			executes = 1;
			break;
		}
	}
	if (user == SESSION_OF_SERVICE && sessions != 1)
		abort();
	if (waits != (user != SESSION_OF_SERVICE) || executes != (user != WORKER) || has_rules == 1)
		abort();
}

// Return whether it is a plan of a service, or else of a forked worker or of a session, as 'y', 'f', 's' or 'n'.
static char read_plan(const uint8_t *data, size_t size)
{
	struct plan *plan = malloc(size ? size : 1);
	char found = 'n';

	memcpy(plan, data, size);
	for (int user = WORKER; user <= SESSION_OF_SERVICE; user++)
		if (is_plan(plan, size, user))
			found = "fys"[user];
	if (found != 'n') {
		const struct operation *operation = first_operation(plan);
		uint64_t phase = 0;

		for (uint32_t i = 0; i < plan->count; i++, operation = next_operation(operation)) {
			for (uint32_t j = 0; j < operation->number_count; j++)
				sink += operation->numbers[j];
			for (uint32_t j = 0; j < operation->string_count; j++)
				sink += length_of(string_of(operation, j));
			if (shapes[operation->kind].phase < phase)
				abort();
			phase = shapes[operation->kind].phase;
		}
		if ((const char *)operation != (const char *)plan + size)
			abort();
		check_meaning(plan, found == 'y' ? SERVICE : found == 's' ? SESSION_OF_SERVICE : WORKER);
	}
	free(plan);
	return found;
}

#ifdef FUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_plan(data, size);
	return 0;
}
#else
int main(void)
{
	uint32_t size;

	while (fread(&size, sizeof size, 1, stdin) == 1) {
		uint8_t *data = malloc(size ? size : 1);

		if (fread(data, 1, size, stdin) != size)
			return 1;
		putchar(read_plan(data, size));
		free(data);
	}
	return 0;
}
#endif
