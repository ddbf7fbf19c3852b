"""Descriptors that whoever started this process handed over: sd_listen_fds(3)."""

from __future__ import annotations

import os

FIRST = 3  # SD_LISTEN_FDS_START


def passed_descriptors() -> list[tuple[str, int]]:
    """Names and descriptors in their order; they are the caller's.  Takes the variables out of the environment.

    Empty where there are none or they were meant for another process.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    passed = []
    for number in range(int(count)):
        os.set_inheritable(FIRST + number, False)
        passed.append((names[number] if number < len(names) else "", FIRST + number))
    return passed
