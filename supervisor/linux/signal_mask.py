"""pthread_sigmask(3) and signal(2) for all signals at once, without a Python object for each; used at each start.

Sets of signals are numbers, with bit 0 for signal 1 as in the kernel.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

from supervisor.linux.libc import function

SigSet = ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))  # sigset_t of glibc and musl

_pthread_sigmask = function("pthread_sigmask", ctypes.c_int, ctypes.POINTER(SigSet), ctypes.POINTER(SigSet))
_signal = function("signal", ctypes.c_int, ctypes.c_void_p)
_ALL = SigSet(*[~0] * len(SigSet()))
_NONE = SigSet()
_NUMBERS = [int(signum) for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}]
OF_PROCESSES = sum(1 << number - 1 for number in _NUMBERS)  # without those of the C library
SETTABLE = ((1 << 64) - 1) & ~(1 << signal.SIGKILL - 1 | 1 << signal.SIGSTOP - 1)  # with those of the C library


def block_all() -> Any:
    """Block all signals that can be blocked; return the previous mask, for `set_mask`."""
    before = SigSet()
    _set(_ALL, before)
    return before


def set_mask(mask: Any) -> None:
    """Restore the mask that `block_all` returned."""
    _set(mask, None)


def unblock_all() -> None:
    _set(_NONE, None)


def default_all() -> None:
    """Set SIG_DFL for all signals, without Python's knowledge: only for a child, which sets its own handlers."""
    for number in _NUMBERS:
        _signal(number, None)


def ignored() -> int:
    """Return the set of signals that a program would ignore which this process executes.

    It contains the signals of the C library, which nobody but the parent of this process can have ignored.
    """
    heard = (number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN)
    return SETTABLE & ~sum(1 << number - 1 for number in heard)


def _set(mask: Any, before: Any) -> None:
    number = _pthread_sigmask(signal.SIG_SETMASK, mask, before)
    if number:
        raise OSError(number, os.strerror(number))
