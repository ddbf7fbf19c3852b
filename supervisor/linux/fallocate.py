"""`fallocate(2)`: taking pages out of the middle of a file."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, function

# <linux/falloc.h>
FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2

_fallocate = function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)  # off_t


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give back what `length` bytes from `offset` on take up; they read as zeros, and no size changes.

    Raises OSError, EOPNOTSUPP where the file system cannot.
    """
    check(_fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length))
