"""Hearing that a socket's path was bound anew: whoever is connected to it is connected to nobody any more.

A connected datagram socket says so only to who sends: unix(7) has no hang-up for it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress

from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_CREATE,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    parse_events,
)
from supervisor.loop.loop import Loop

_BUFFER = 16384  # bytes


class Rebinding:
    """Calls `rebound` when something comes to be at `path`; never where that cannot be watched.

    Owns its descriptor.
    """

    def __init__(self, loop: Loop, path: str, rebound: Callable[[], None]) -> None:
        self._loop = loop
        self._name = os.path.basename(path)
        self._rebound = rebound
        self._fd = -1
        with suppress(OSError):  # none are left: the next message tells
            self._fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)
            inotify_add_watch(self._fd, os.path.dirname(path) or ".", IN_CREATE | IN_ONLYDIR)
            loop.watch(self._fd, select.EPOLLIN, lambda _events: self._take())

    def forget(self) -> None:
        """What was until now is known."""
        self._has_come()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> None:
        if self._has_come():
            self._rebound()

    def _has_come(self) -> bool:
        """Take the events that there are; lost ones may have been anything, and count."""
        found = False
        with suppress(BlockingIOError):
            while self._fd >= 0:
                events = parse_events(os.read(self._fd, _BUFFER))
                found = found or any(name == self._name or wd < 0 for wd, _mask, name in events)
        return found
