"""Watch of the run-time folder, which is made again when it, or a folder in it, is removed."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from supervisor.errors import RuntimeFolderError
from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_DELETE,
    IN_IGNORED,
    IN_MOVED_FROM,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    parse_events,
)
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.manager.runtime import FOLDERS, RuntimeFolder

MASK = IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR
BUFFER = 1 << 16


class FolderWatch:
    """Watch that calls `remade` after something was removed and made again. Owns its descriptor."""

    def __init__(self, loop: Loop, runtime: RuntimeFolder, remade: Callable[[], None]) -> None:
        self._loop = loop
        self._runtime = runtime
        self._remade = remade
        self._names = {*FOLDERS, os.path.basename(runtime.path)}
        self._fd = -1
        try:
            self._fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
            self._watch()
        except OSError as error:
            log.warning("cannot watch %s: %s; if removed, it is not made again", runtime.path, error.strerror)
            self.close()
        else:
            loop.watch(self._fd, select.EPOLLIN, self._read)
            loop.call_soon(self._look)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _watch(self) -> None:
        for path in (os.path.dirname(self._runtime.path), self._runtime.path):
            inotify_add_watch(self._fd, path, MASK)

    def _read(self, _events: int) -> None:
        try:
            events = parse_events(os.read(self._fd, BUFFER))
        except BlockingIOError:
            return
        # an overflow of the queue (watch < 0) may have dropped such an event
        if any(name in self._names or watch < 0 or mask & IN_IGNORED for watch, mask, name in events):
            self._look()

    def _look(self) -> None:
        if self._fd < 0:
            return
        try:
            if not self._runtime.restore():
                return
            self._watch()
        except RuntimeFolderError as error:
            log.error("%s: it was removed, and clients cannot reach spawnd; restart spawnd", error)
            return
        except OSError as error:
            log.error("cannot watch %s: %s", self._runtime.path, error.strerror)
        notice("run-time folder %s was removed, or a part of it: made again", self._runtime.path)
        self._remade()
