"""Ambient capabilities, capabilities(7): the part of prctl(2) that python-prctl has no call for."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function

# <linux/prctl.h>
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def cap_ambient_raise(capability: int) -> None:
    """Add a capability (its number) to the ambient set.

    Raises OSError: EPERM unless it is in the permitted and in the inheritable set, EINVAL
    for a number that the kernel does not know.
    """
    check(_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def cap_ambient_is_set(capability: int) -> bool:
    """Whether a capability is in the ambient set.  Raises OSError, EINVAL for an unknown number."""
    return check(_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0)) == 1


def cap_ambient_clear_all() -> None:
    """Empty the ambient set."""
    check(_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
