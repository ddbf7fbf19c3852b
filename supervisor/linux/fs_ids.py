"""The ids by which the kernel judges access to files, of one thread alone: setfsuid(2), setfsgid(2), setgroups(2).

glibc's own `setgroups` changes all threads of a process, so the system call is made by its number.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from supervisor.linux.libc import check, function

# <asm/unistd.h>; 32-bit processes have a call of their own for ids of 32 bits, `setgroups32`
_NUMBERS = {"x86_64": 116, "ppc64le": 81, "s390x": 206}
_GENERIC = 159  # aarch64, riscv64, loongarch64: <asm-generic/unistd.h>
_OF_32_BITS = 206

_setfsuid = function("setfsuid", ctypes.c_uint)
_setfsgid = function("setfsgid", ctypes.c_uint)
_setgroups = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_char_p)
_ASK = 2**32 - 1  # no id: changes nothing, and returns the one in force


def setfsuid(uid: int) -> None:
    """Raises OSError, EPERM where the id is not in force afterwards, of which the kernel itself says nothing."""
    _setfsuid(uid)
    _check(_setfsuid(_ASK), uid)


def setfsgid(gid: int) -> None:
    """Raises OSError, as `setfsuid`."""
    _setfsgid(gid)
    _check(_setfsgid(_ASK), gid)


def setgroups(gids: Iterable[int]) -> None:
    """Set the supplementary groups of the calling thread.  Raises OSError."""
    values = array.array("I", gids)
    check(_setgroups(_number(), len(values), values.tobytes()))


def _check(found: int, wanted: int) -> None:
    if found & _ASK != wanted:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _number() -> int:
    if struct.calcsize("P") == 4:
        return _OF_32_BITS
    return _NUMBERS.get(os.uname().machine, _GENERIC)
