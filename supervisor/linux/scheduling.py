"""I/O priority, ioprio_set(2), and timer slack, prctl(2)."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function, syscall_number

# <linux/ioprio.h>
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13
CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
NORMAL = 4  # the priority of a class without an explicit one

# glibc has no function; ioprio_get has the next number on all architectures
_NR_IOPRIO_SET = syscall_number({"x86_64": 251, "ppc64le": 273, "s390x": 282}, 30, {"i686": 289, "x86_64": 289}, 314)

_ioprio_set = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int)
_ioprio_get = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int)

# <linux/prctl.h>
PR_SET_TIMERSLACK = 29
PR_GET_TIMERSLACK = 30

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def ioprio_set(name: str, priority: int) -> None:
    """Set class and priority of the calling thread. Raises OSError, EPERM without the required capability."""
    value = CLASSES[name] << IOPRIO_CLASS_SHIFT | priority
    check(_ioprio_set(_NR_IOPRIO_SET, IOPRIO_WHO_PROCESS, 0, value))


def ioprio_get() -> tuple[int, int]:
    """Return the number of the I/O class and the priority of the calling thread."""
    value = check(_ioprio_get(_NR_IOPRIO_SET + 1, IOPRIO_WHO_PROCESS, 0))
    return value >> IOPRIO_CLASS_SHIFT, value & 7


def set_timer_slack(nanoseconds: int) -> None:
    """Set the time by which timers of the calling thread may be late, so that they can expire with others."""
    check(_prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0))


def timer_slack() -> int:
    return check(_prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0))
