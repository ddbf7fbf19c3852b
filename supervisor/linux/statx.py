"""statx(2): the time that a file was made, and what a file is without a question to its file system."""

from __future__ import annotations

import ctypes
import os
import struct

from supervisor.linux.libc import check, function

# <linux/stat.h>, <linux/fcntl.h>
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
STATX_INO = 0x100
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000  # Linux 5.8
_AT_FDCWD = -100
_SIZE = 256  # struct statx
_MASK = struct.Struct("=I")
_BTIME = struct.Struct("=qI")  # seconds and nanoseconds
_BTIME_AT = 80
_NUMBER = struct.Struct("=Q")
_INODE_AT, _MOUNT_AT = 32, 144

_statx = function("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


def birth_time(fd: int) -> float | None:
    """When the file that `fd` refers to was made, seconds since 1970; None where its file system does not say.

    Raises OSError.
    """
    status = ctypes.create_string_buffer(_SIZE)
    check(_statx(fd, b"", AT_EMPTY_PATH, STATX_BTIME, status))
    if not _MASK.unpack_from(status)[0] & STATX_BTIME:
        return None
    seconds, nanoseconds = _BTIME.unpack_from(status, _BTIME_AT)
    return float(seconds + nanoseconds / 1e9)


def inode_and_mount(path: str) -> tuple[int, int]:
    """Inode and mount of a file, as far as the kernel knows them: a server, as that of FUSE, is not asked.

    The mount is 0 before Linux 5.8.  Raises OSError.
    """
    status = ctypes.create_string_buffer(_SIZE)
    check(_statx(_AT_FDCWD, os.fsencode(path), AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, status))
    known = _MASK.unpack_from(status)[0] & STATX_MNT_ID
    return _NUMBER.unpack_from(status, _INODE_AT)[0], _NUMBER.unpack_from(status, _MOUNT_AT)[0] if known else 0
