"""openat2(2): an open that says which steps of a path it takes."""

from __future__ import annotations

import ctypes
import os
import struct

from supervisor.linux.libc import check, function

# <linux/openat2.h>
RESOLVE_NO_MAGICLINKS = 0x02

_NUMBER = 437  # the same on every architecture
_HOW = struct.Struct("=3Q")  # struct open_how: flags, mode, resolve

_syscall = function(
    "syscall", ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t
)


def openat2(folder: int, path: str, flags: int, resolve: int) -> int:
    """Open `path`, from `folder` where it is relative (Linux 5.6); the caller owns the descriptor.

    Raises OSError: ELOOP for a step that `resolve` forbids.
    """
    how = _HOW.pack(flags, 0, resolve)
    return check(_syscall(_NUMBER, folder, os.fsencode(path), how, _HOW.size), path)
