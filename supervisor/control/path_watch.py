"""Watch of the path of a socket or file, for removal and replacement."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress

from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_CREATE,
    IN_DELETE,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    inotify_rm_watch,
    parse_events,
)
from supervisor.log.logger import log
from supervisor.loop.loop import Loop

MASK = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR
BUFFER = 1 << 16


class PathWatch:
    """Calls `changed` after names have come, gone or changed in the folder of `path`. Owns its descriptor."""

    def __init__(self, loop: Loop, path: str, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._name = os.path.basename(path)
        self._changed = changed
        self._folder = os.path.dirname(path)
        self._fd = self._number = -1
        try:
            self._fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
            self._number = inotify_add_watch(self._fd, self._folder, MASK)
        except OSError as error:
            log.warning("cannot watch %s: %s; it would not be made again if it were removed", path, error.strerror)
            self._close_fd()
        else:
            loop.watch(self._fd, select.EPOLLIN, self._read)

    def renew(self) -> None:
        """Watch the new folder of the path: the old one is gone."""
        if self._fd >= 0:
            with suppress(OSError):  # the folder is gone again, and its maker will be notified
                self._number = inotify_add_watch(self._fd, self._folder, MASK)
            self._changed()

    def end(self) -> None:
        """Watch no longer. A later `close` need not wait for the kernel, which takes some 10 ms to free a watch."""
        if self._fd >= 0:
            with suppress(OSError):  # the folder is gone
                inotify_rm_watch(self._fd, self._number)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            self._close_fd()

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, _events: int) -> None:
        try:
            events = parse_events(os.read(self._fd, BUFFER))
        except BlockingIOError:
            return
        # an overflow of the queue (watch < 0) may have dropped such an event
        if any(name == self._name or watch < 0 for watch, _mask, name in events):
            self._changed()
