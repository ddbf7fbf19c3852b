// The checker of plans for a fuzzer, and for tests: it reads plans, each after its size, and says which are plans.
//
// A plan that is taken is read as far as it is read when it is carried out: beyond its bytes are none.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

static size_t sink;

static int read_plan(const uint8_t *data, size_t size)
{
	struct plan *plan = malloc(size ? size : 1);
	int is_good;

	memcpy(plan, data, size);
	is_good = is_plan(plan, size);
	if (is_good) {
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
	}
	free(plan);
	return is_good;
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
		putchar(read_plan(data, size) ? 'y' : 'n');
		free(data);
	}
	return 0;
}
#endif
