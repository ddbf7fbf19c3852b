"""Descriptors that whoever started this process handed over: sd_listen_fds(3)."""

from __future__ import annotations

import os

from supervisor.linux.descriptors import CLOSE_RANGE_CLOEXEC, close_range

FIRST = 3  # SD_LISTEN_FDS_START

LAST_VARIABLE = "SPAWND_LAST"  # in the environment of a process that is started only to be stopped


def passed_descriptors() -> list[tuple[str, int]]:
    """Names and descriptors in their order; they are the caller's.  Takes the variables out of the environment.

    Empty where there are none or they were meant for another process.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    passed = [(names[number] if number < len(names) else "", FIRST + number) for number in range(int(count))]
    if passed:
        _close_on_exec(FIRST, passed[-1][1])
    return passed


def _close_on_exec(first: int, last: int) -> None:
    try:
        close_range(first, last, CLOSE_RANGE_CLOEXEC)  # a worker may get thousands
    except OSError:  # Linux 5.10
        for fd in range(first, last + 1):
            os.set_inheritable(fd, False)
