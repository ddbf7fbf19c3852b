"""Filters for system calls, in the form of numbers of an operation: seccomp(2), <linux/bpf_common.h>."""

from __future__ import annotations

import ctypes
import os
import struct

from supervisor.linux.capabilities import set_no_new_privs
from supervisor.linux.libc import check, function

LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
PR_SET_SECCOMP, MODE_FILTER = 22, 2  # <linux/prctl.h>, <linux/seccomp.h>
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
_ROWS = {  # on x86-64, and where numbers are those of <asm-generic/unistd.h>
    "write": (1, 64),
    "socket": (41, 198),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
}
NUMBERS = {name: row[os.uname().machine != "x86_64"] for name, row in _ROWS.items()}


_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)


def instruction(code: int, k: int, when: int = 0, otherwise: int = 0) -> int:
    """Return a `struct sock_filter` as a number."""
    (number,) = struct.unpack("=Q", struct.pack("=HBBI", code, when, otherwise, k))
    return int(number)


def refusing(errno: int, *names: str) -> list[int]:
    """Return the filter that refuses these system calls."""
    return _by_name(names, REFUSE | errno, ALLOW)


def refusing_others(errno: int, *names: str) -> list[int]:
    """Return the filter that refuses all other system calls."""
    return _by_name(names, ALLOW, REFUSE | errno)


def _by_name(names: tuple[str, ...], then: int, otherwise: int) -> list[int]:
    tests = [instruction(EQUALS, NUMBERS[name], when=len(names) - at, otherwise=0) for at, name in enumerate(names)]
    return [instruction(LOAD, 0), *tests, instruction(RETURN, otherwise), instruction(RETURN, then)]


def install(numbers: list[int]) -> None:
    """Install a filter in this process, which is a child of the test. Raises OSError."""
    program = struct.pack(f"={len(numbers)}Q", *numbers)
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(numbers), ctypes.addressof(buffer))  # struct sock_fprog
    set_no_new_privs()
    check(_prctl(PR_SET_SECCOMP, MODE_FILTER, header))
