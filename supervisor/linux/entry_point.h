// The entry point of a program without a C library: `start` gets the stack made by execve(2).
#pragma once

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x30, xzr\n\tmov x0, sp\n\tbl start\n");
#elif defined(__riscv) && __riscv_xlen == 64
__asm__(".globl _start\n_start:\n\t.option push\n\t.option norelax\n\tla gp, __global_pointer$\n\t.option pop\n"
	"\tmv a0, sp\n\tandi sp, sp, -16\n\tcall start\n");
#endif
