// Set-up of a forked child that goes on in Python, by the same code as `launch`.
//
// A plan for it executes no program. The child has a C library, whose state these system calls leave as it is: they
// change the calling thread alone, and a forked child has no other.
#include "carry_out.h"

// Carry out a plan in the calling process, which ends if a step fails, or if spawnd is gone. `errors` is the number of
// the socket for the report, which moves. Returns the assignments of the environment, with NULL at their end.
const char **carry_out_forked(const void *plan, size_t size, int *errors)
{
	begin_report(*errors);
	if (!is_plan(plan, size, WORKER))
		fail_without_plan();
	make_room(0);
	carry_out(plan);
	*errors = report.fd;
	return environment.list;
}
