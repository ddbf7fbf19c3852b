"""How late a timer of a thread may be, so that it rings with others: prctl(2)."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function

# <linux/prctl.h>
PR_SET_TIMERSLACK = 29
PR_GET_TIMERSLACK = 30

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def set_timer_slack(nanoseconds: int) -> None:
    check(_prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0))


def timer_slack() -> int:
    return check(_prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0))
