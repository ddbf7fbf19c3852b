// A child that shares the memory of its parent, like after vfork(2), for a program without a C library.
//
// The parent waits until the child has executed a program or has ended. The child has a stack of its own, but the
// descriptors, directories and signal handlers are copies.
#pragma once

#include <linux/sched.h>
#include <linux/signal.h>

long clone_with_stack(long flags, void *stack_end, void (*child)(void));
long clone3_with_stack(const struct clone_args *arguments, unsigned long size, void (*child)(void));

#if defined(__x86_64__)
__asm__("clone_with_stack:\n\tmov %rdx, %r9\n\txor %edx, %edx\n\txor %r10d, %r10d\n\txor %r8d, %r8d\n"
	"\tmov $56, %eax\n\tjmp 2f\n"
	"clone3_with_stack:\n\tmov %rdx, %r9\n\tmov $435, %eax\n"
	"2:\tsyscall\n\ttest %rax, %rax\n\tjnz 1f\n\txor %ebp, %ebp\n\tcall *%r9\n\thlt\n1:\tret\n");
#elif defined(__aarch64__)
__asm__("clone_with_stack:\n\tmov x9, x2\n\tmov x2, xzr\n\tmov x3, xzr\n\tmov x4, xzr\n\tmov x8, #220\n\tb 2f\n"
	"clone3_with_stack:\n\tmov x9, x2\n\tmov x8, #435\n"
	"2:\tsvc #0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tblr x9\n\tbrk #0\n1:\tret\n");
#elif defined(__riscv) && __riscv_xlen == 64
__asm__("clone_with_stack:\n\tmv t0, a2\n\tli a2, 0\n\tli a3, 0\n\tli a4, 0\n\tli a7, 220\n\tj 2f\n"
	"clone3_with_stack:\n\tmv t0, a2\n\tli a7, 435\n"
	"2:\tecall\n\tbnez a0, 1f\n\tjalr t0\n\tebreak\n1:\tret\n");
#endif

// Returns the pid, or a negative errno. SIGCHLD reports the end.
static long start_sharing(void (*child)(void), void *stack_end)
{
	return clone_with_stack(CLONE_VM | CLONE_VFORK | SIGCHLD, stack_end, child);
}

// Do the same, with a child that begins in the cgroup of a descriptor of its directory: Linux 5.7.
static long start_sharing_in(long cgroup, void (*child)(void), void *stack, unsigned long size)
{
	const struct clone_args arguments = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP, .exit_signal = SIGCHLD,
		.stack = (unsigned long)stack, .stack_size = size, .cgroup = (unsigned long)cgroup,
	};

	return clone3_with_stack(&arguments, sizeof arguments, child);
}
