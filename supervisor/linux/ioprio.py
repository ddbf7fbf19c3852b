"""ioprio_set(2): how the kernel hands out time on disks.  glibc has no function for it."""

from __future__ import annotations

import ctypes
import os
import struct

from supervisor.linux.libc import check, function

# <linux/ioprio.h>
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13
CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
NORMAL = 4  # the priority of a class that is given without one

# <asm/unistd.h>
_NUMBERS = {"x86_64": 251, "ppc64le": 273, "s390x": 282}
_NUMBERS_OF_32_BITS = {"i686": 289, "x86_64": 289}
_GENERIC = 30  # aarch64, riscv64, loongarch64: <asm-generic/unistd.h>
_ARM = 314

_syscall = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int)
_get = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int)


def ioprio_set(name: str, priority: int) -> None:
    """Set class and priority of the calling thread.  Raises OSError, EPERM for what takes a capability."""
    value = CLASSES[name] << IOPRIO_CLASS_SHIFT | priority
    check(_syscall(_number(), IOPRIO_WHO_PROCESS, 0, value))


def ioprio_get() -> tuple[int, int]:
    """Return the number of the class, and the priority, of the calling thread."""
    value = check(_get(_number() + 1, IOPRIO_WHO_PROCESS, 0))
    return value >> IOPRIO_CLASS_SHIFT, value & 7


def _number() -> int:
    if struct.calcsize("P") == 4:
        return _NUMBERS_OF_32_BITS.get(os.uname().machine, _ARM)
    return _NUMBERS.get(os.uname().machine, _GENERIC)
