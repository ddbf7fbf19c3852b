"""Whether others of its user may trace a process and find its memory in a core dump: prctl(2)."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function

# <linux/prctl.h>
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def is_dumpable() -> bool:
    return check(_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)) == 1


def set_dumpable(wanted: bool) -> None:
    check(_prctl(PR_SET_DUMPABLE, wanted, 0, 0, 0))
