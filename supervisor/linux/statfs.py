"""fstatfs(2): the type of the file system that a file is on, which `os.statvfs` leaves out."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function

# <linux/magic.h>
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
PID_FS_MAGIC = 0x50494446  # Linux 6.9
_SIZE = 256  # struct statfs has at most 120 bytes; its first member is the type, a long

_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_char_p)


def file_system_of(fd: int) -> int:
    """Return the type, such as PROC_SUPER_MAGIC, of the file system that `fd` is on; an O_PATH one will do.

    Unlike the device, the type is the same for every mount: each mount of proc has a device of its own (Linux 5.8).
    Raises OSError.
    """
    status = ctypes.create_string_buffer(_SIZE)
    check(_fstatfs(fd, status))
    return ctypes.c_long.from_buffer(status).value


def is_proc(fd: int) -> bool:
    """Whether `fd` is on proc, mounted anywhere: its links may lead to what only this process has open."""
    return file_system_of(fd) == PROC_SUPER_MAGIC
