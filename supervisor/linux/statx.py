"""statx(2), for the time that a file was made, which `os.stat` does not tell."""

from __future__ import annotations

import ctypes
import struct

from supervisor.linux.libc import check, function

# <linux/stat.h>, <linux/fcntl.h>
AT_EMPTY_PATH = 0x1000
STATX_BTIME = 0x800
_SIZE = 256  # struct statx
_MASK = struct.Struct("=I")
_BTIME = struct.Struct("=qI")  # seconds and nanoseconds
_BTIME_AT = 80

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
