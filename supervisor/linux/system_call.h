// System calls without a C library, for processes that share errno with their parent, or have no C library.
#pragma once

#include <asm/unistd.h>

enum { SIGSET_SIZE = 8 };

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
static inline long call_six(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#else

// The number and the arguments are in registers; the result replaces the first argument.
#if defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define NUMBER_REGISTER "x8"
#define ARGUMENT_REGISTER(n) "x" #n
#define ENTER_KERNEL "svc #0"
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#define NUMBER_REGISTER "a7"
#define ARGUMENT_REGISTER(n) "a" #n
#define ENTER_KERNEL "ecall"
#else
#error "this architecture is not known here: it takes an entry point and a system call"
#endif
static inline long call_six(long number, long a, long b, long c, long d, long e, long f)
{
	register long which __asm__(NUMBER_REGISTER) = number;
	register long first __asm__(ARGUMENT_REGISTER(0)) = a;
	register long second __asm__(ARGUMENT_REGISTER(1)) = b;
	register long third __asm__(ARGUMENT_REGISTER(2)) = c;
	register long fourth __asm__(ARGUMENT_REGISTER(3)) = d;
	register long fifth __asm__(ARGUMENT_REGISTER(4)) = e;
	register long sixth __asm__(ARGUMENT_REGISTER(5)) = f;
	__asm__ volatile(ENTER_KERNEL
			 : "+r"(first)
			 : "r"(which), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "memory");
	return first;
}
#endif

static inline long call(long number, long a, long b, long c, long d)
{
	return call_six(number, a, b, c, d, 0, 0);
}

static _Noreturn inline void leave(long status)
{
	call(__NR_exit_group, status, 0, 0, 0);
	__builtin_trap(); // a filter for system calls has refused the exit
}
