"""Credentials that neither `os` nor capabilities cover: ids of a thread, dumpability, session keyring.

glibc's `setgroups` changes all threads of a process, so this module makes the system call by number. The same
applies to keyctl(2), because libkeyutils may be missing.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
from collections.abc import Iterable

from supervisor.linux.libc import check, function, syscall_number

# 32-bit processes have the separate call `setgroups32` for ids of 32 bits
_NR_SETGROUPS = syscall_number({"x86_64": 116, "ppc64le": 81, "s390x": 206}, 159, {}, 206)
_NR_KEYCTL = syscall_number({"x86_64": 250, "ppc64le": 271, "s390x": 280}, 219, {"i686": 288, "x86_64": 288}, 311)

_setfsuid = function("setfsuid", ctypes.c_uint)
_setfsgid = function("setfsgid", ctypes.c_uint)
_setgroups = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_char_p)
_ASK = 2**32 - 1  # an invalid id: changes nothing, and returns the current one

# <linux/prctl.h>
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

KEYCTL_JOIN_SESSION_KEYRING = 1  # <linux/keyctl.h>

_keyctl = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_char_p)


def setfsuid(uid: int) -> None:
    """Set the user id for file access of the calling thread.

    Raises OSError; EPERM if the id has not changed, which the kernel itself does not report.
    """
    _setfsuid(uid)
    _check(_setfsuid(_ASK), uid)


def setfsgid(gid: int) -> None:
    """Set the group id for file access, like `setfsuid`. Raises OSError."""
    _setfsgid(gid)
    _check(_setfsgid(_ASK), gid)


def setgroups(gids: Iterable[int]) -> None:
    """Set the supplementary groups of the calling thread. Raises OSError."""
    values = array.array("I", gids)
    check(_setgroups(_NR_SETGROUPS, len(values), values.tobytes()))


def _check(found: int, wanted: int) -> None:
    if found & _ASK != wanted:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def is_dumpable() -> bool:
    """Whether processes of the same user may trace this one, and a core dump may contain its memory: prctl(2)."""
    return check(_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)) == 1


def set_dumpable(wanted: bool) -> None:
    check(_prctl(PR_SET_DUMPABLE, wanted, 0, 0, 0))


def join_session_keyring() -> None:
    """Replace the inherited session-keyring(7) by a new one of the real user of this process.

    Raises OSError: ENOSYS on a kernel without keyrings, EPERM if a container forbids them, EDQUOT.
    """
    check(_keyctl(_NR_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None))
