"""Data for another process, in memory: memfd_create(2)."""

from __future__ import annotations

import os


def memfd(name: str, data: bytes) -> int:
    """A memfd with the data, close-on-exec, at its beginning; the caller owns it.  Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
