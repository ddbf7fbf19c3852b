"""Credentials that neither `os` nor capabilities cover: ids of one thread, who may trace a process, its keyring.

glibc's own `setgroups` changes all threads of a process, so the system call is made by its number, and so is
keyctl(2), as libkeyutils is not everywhere.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
from collections.abc import Iterable

from supervisor.linux.libc import check, function, syscall_number

# 32-bit processes have a call of their own for ids of 32 bits, `setgroups32`
_NR_SETGROUPS = syscall_number({"x86_64": 116, "ppc64le": 81, "s390x": 206}, 159, {}, 206)
_NR_KEYCTL = syscall_number({"x86_64": 250, "ppc64le": 271, "s390x": 280}, 219, {"i686": 288, "x86_64": 288}, 311)

_setfsuid = function("setfsuid", ctypes.c_uint)
_setfsgid = function("setfsgid", ctypes.c_uint)
_setgroups = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_char_p)
_ASK = 2**32 - 1  # no id: changes nothing, and returns the one in force

# <linux/prctl.h>
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

KEYCTL_JOIN_SESSION_KEYRING = 1  # <linux/keyctl.h>

_keyctl = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_char_p)


def setfsuid(uid: int) -> None:
    """Set the user id that the kernel judges access to files by, of the calling thread.

    Raises OSError, EPERM where the id is not in force afterwards, of which the kernel itself says nothing.
    """
    _setfsuid(uid)
    _check(_setfsuid(_ASK), uid)


def setfsgid(gid: int) -> None:
    """Raises OSError, as `setfsuid`."""
    _setfsgid(gid)
    _check(_setfsgid(_ASK), gid)


def setgroups(gids: Iterable[int]) -> None:
    """Set the supplementary groups of the calling thread.  Raises OSError."""
    values = array.array("I", gids)
    check(_setgroups(_NR_SETGROUPS, len(values), values.tobytes()))


def _check(found: int, wanted: int) -> None:
    if found & _ASK != wanted:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def is_dumpable() -> bool:
    """Whether others of its user may trace this process and find its memory in a core dump: prctl(2)."""
    return check(_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)) == 1


def set_dumpable(wanted: bool) -> None:
    check(_prctl(PR_SET_DUMPABLE, wanted, 0, 0, 0))


def join_session_keyring() -> None:
    """Have a new session-keyring(7), which belongs to the real user of this process, instead of the inherited one.

    Raises OSError: ENOSYS on a kernel without keyrings, EPERM where a container forbids them, EDQUOT.
    """
    check(_keyctl(_NR_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None))
