"""`kcmp(2)`: whether two descriptors are one open file, and which comes first where they are two."""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum

from supervisor.linux.libc import check, function

KCMP_FILE = 0
# the C library has no function for it; 272 is the number on the architectures of the generic table
_NUMBERS = {"x86_64": 312, "i686": 349, "armv7l": 378, "ppc64le": 354, "s390x": 343}
_NUMBER = _NUMBERS.get(os.uname().machine, 272)
_syscall = function(
    "syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong
)


class Order(IntEnum):
    """How the kernel orders two open files: in an order of its own, which stays as long as both are open."""

    EQUAL = 0
    LESS = 1
    GREATER = 2
    UNKNOWN = 3


def kcmp_files(fd1: int, fd2: int) -> Order:
    """How the open file descriptions of two descriptors of this process are ordered; EQUAL where they share one.

    UNKNOWN also where that cannot be told: a kernel without CONFIG_KCMP, or a filter against it.  Descriptors of
    another process are compared as duplicates only: the kernel would wait for its execve, which may take for ever.
    """
    pid = os.getpid()
    try:
        return Order(check(_syscall(_NUMBER, pid, pid, KCMP_FILE, fd1, fd2)))
    except (OSError, ValueError):
        return Order.UNKNOWN
