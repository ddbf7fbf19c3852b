"""`kcmp(2)`: whether two descriptors are one open file."""

from __future__ import annotations

import ctypes
import os

from supervisor.linux.libc import check, function

KCMP_FILE = 0
# the C library has no function for it; 272 is the number on the architectures of the generic table
_NUMBERS = {"x86_64": 312, "i686": 349, "armv7l": 378, "ppc64le": 354, "s390x": 343}
_NUMBER = _NUMBERS.get(os.uname().machine, 272)
_syscall = function(
    "syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong
)


def kcmp_file(fd1: int, fd2: int) -> bool:
    """Whether both descriptors of this process share one open file description.

    False also where that cannot be told: a kernel without CONFIG_KCMP, or a filter against it.
    """
    pid = os.getpid()
    try:
        return check(_syscall(_NUMBER, pid, pid, KCMP_FILE, fd1, fd2)) == 0
    except OSError:
        return False
