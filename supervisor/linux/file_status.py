"""fstatfs(2) and statx(2), for fields that `os.stat` and `os.statvfs` lack, and pidfs for numbers of processes.

The inode of a process's pidfds is a number that no other process of the running kernel has had.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from functools import cache

from supervisor.linux.libc import check, function

# <linux/magic.h>
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
PID_FS_MAGIC = 0x50494446  # Linux 6.9
_SIZE = 256  # struct statx; struct statfs has at most 120 bytes, and its first member is the type, a long

_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_char_p)

# <linux/stat.h>, <linux/fcntl.h>
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
STATX_TYPE = 0x1
STATX_INO = 0x100
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000  # Linux 5.8
_AT_FDCWD = -100
_MASK = struct.Struct("=I")
_BTIME = struct.Struct("=qI")  # seconds and nanoseconds
_BTIME_AT = 80
_NUMBER = struct.Struct("=Q")
_DEVICE = struct.Struct("=II")  # major and minor number
_MODE = struct.Struct("=H")
_MODE_AT, _INODE_AT, _DEVICE_AT, _MOUNT_AT = 28, 32, 136, 144

_statx = function("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


def file_system_of(fd: int) -> int:
    """Return the type of the file system of `fd`, e.g. PROC_SUPER_MAGIC; an O_PATH descriptor is sufficient.

    Unlike the device, the type is the same for every mount: each mount of proc has its own device (Linux
    5.8). Raises OSError.
    """
    status = ctypes.create_string_buffer(_SIZE)
    check(_fstatfs(fd, status))
    return ctypes.c_long.from_buffer(status).value


def is_proc(fd: int) -> bool:
    """Whether `fd` is on any mount of proc, whose links may lead to files that only this process has open."""
    return file_system_of(fd) == PROC_SUPER_MAGIC


def birth_time(fd: int) -> float | None:
    """Return the birth time of the file behind `fd`, in seconds since 1970; None if its file system has none.

    Raises OSError.
    """
    status = ctypes.create_string_buffer(_SIZE)
    check(_statx(fd, b"", AT_EMPTY_PATH, STATX_BTIME, status))
    if not _MASK.unpack_from(status)[0] & STATX_BTIME:
        return None
    seconds, nanoseconds = _BTIME.unpack_from(status, _BTIME_AT)
    return float(seconds + nanoseconds / 1e9)


def inode_and_mount(path: str) -> tuple[int, int]:
    """Return inode and mount of a file from the kernel's cache, without a request to a server such as FUSE's.

    The mount is 0 before Linux 5.8. Raises OSError.
    """
    status = ctypes.create_string_buffer(_SIZE)
    check(_statx(_AT_FDCWD, os.fsencode(path), AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, status))
    known = _MASK.unpack_from(status)[0] & STATX_MNT_ID
    return _NUMBER.unpack_from(status, _INODE_AT)[0], _NUMBER.unpack_from(status, _MOUNT_AT)[0] if known else 0


def device_and_mount(fd: int) -> tuple[tuple[int, int], int]:
    """Return device and mount of an open file, as `inode_and_mount` does; an O_PATH descriptor is sufficient."""
    status = ctypes.create_string_buffer(_SIZE)
    check(_statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, status))
    known = _MASK.unpack_from(status)[0] & STATX_MNT_ID
    return _DEVICE.unpack_from(status, _DEVICE_AT), _NUMBER.unpack_from(status, _MOUNT_AT)[0] if known else 0


def is_fifo(fd: int) -> bool:
    """Whether an open file is a pipe, by the kernel's cache as well. Raises OSError."""
    status = ctypes.create_string_buffer(_SIZE)
    check(_statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, status))
    return stat.S_ISFIFO(_MODE.unpack_from(status, _MODE_AT)[0])


def number_of_pidfd(pidfd: int) -> int:
    """Return the number of the pidfd's process, which no other process has had since boot; 0 before Linux 6.9.

    Unlike the start time, the number needs no access to the process. Raises OSError.
    """
    return os.fstat(pidfd).st_ino if _has_pidfs() else 0


def number_of_process(pid: int) -> int:
    """Return the number of a process that is not yet reaped, or 0 if there is none."""
    try:
        pidfd = os.pidfd_open(pid)
        try:
            return number_of_pidfd(pidfd)
        finally:
            os.close(pidfd)
    except OSError:
        return 0


@cache
def _has_pidfs() -> bool:
    """Whether pidfds are on pidfs, which is constant for a running kernel."""
    own = os.pidfd_open(os.getpid())
    try:
        return file_system_of(own) == PID_FS_MAGIC
    finally:
        os.close(own)
