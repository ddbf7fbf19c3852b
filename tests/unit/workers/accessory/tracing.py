"""Having a process make a system call that is not in its program: ptrace(2), on x86-64."""

from __future__ import annotations

import ctypes
import os

from supervisor.linux.libc import check, function

PTRACE_CONT = 7
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_ATTACH = 16
REGISTERS = 27  # of struct user_regs_struct, <sys/user.h>
RAX, ORIG_RAX, RIP = 10, 15, 16
SYSCALL_SIZE = 2  # bytes of the instruction

_ptrace = function("ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def call_instead(pid: int, number: int) -> None:
    """Have a child that waits in a system call make the call `number` in its place; it stays traced."""
    check(_ptrace(PTRACE_ATTACH, pid, None, None))
    os.waitpid(pid, 0)
    registers = (ctypes.c_ulonglong * REGISTERS)()
    check(_ptrace(PTRACE_GETREGS, pid, None, ctypes.addressof(registers)))
    registers[ORIG_RAX] = ctypes.c_ulonglong(-1).value  # nothing is to be restarted
    registers[RAX] = number
    registers[RIP] -= SYSCALL_SIZE
    check(_ptrace(PTRACE_SETREGS, pid, None, ctypes.addressof(registers)))
    check(_ptrace(PTRACE_CONT, pid, None, None))
