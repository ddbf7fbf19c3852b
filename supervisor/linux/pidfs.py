"""The number that the kernel gives a process for as long as the host runs: the inode of its pidfds on pidfs."""

from __future__ import annotations

import os
from functools import cache

from supervisor.linux.statfs import PID_FS_MAGIC, file_system_of


def number_of_pidfd(pidfd: int) -> int:
    """Return the number of its process, which no other has had since boot; 0 before Linux 6.9.

    Unlike the start time, it is told without a question to the process.  Raises OSError.
    """
    return os.fstat(pidfd).st_ino if _has_pidfs() else 0


def number_of_process(pid: int) -> int:
    """Return the number of a process that is not reaped; 0 where there is none to be had."""
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
    """Whether pidfds are on pidfs, which is so for all of them or for none as long as the kernel runs."""
    own = os.pidfd_open(os.getpid())
    try:
        return file_system_of(own) == PID_FS_MAGIC
    finally:
        os.close(own)
