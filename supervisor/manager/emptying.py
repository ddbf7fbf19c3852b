"""Ending what a dead process left in its cgroup, before the service is started again."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.cgroup import Leaf, read_populated

EMPTY_TIMEOUT = 5.0  # seconds for killed processes to be gone: more is a kernel that holds them


class Emptying:
    """Kills all that is in a cgroup and calls `done` once, when it is empty or will not be.

    Raises StepError or OSError where that cannot be waited for, and then `done` is not called.
    """

    def __init__(self, loop: Loop, name: str, leaf: Leaf, done: Callable[[], None]) -> None:
        self._loop = loop
        self._name = name
        self._done = done
        self._timer: Timer | None = None
        leaf.kill()
        self._fd = leaf.open_events()
        try:
            loop.watch(self._fd, select.EPOLLPRI, lambda _events: self._look())
        except BaseException:
            os.close(self._fd)
            raise
        self._timer = loop.call_later(EMPTY_TIMEOUT, self._too_long)
        # the last of them may have gone before the watch, and the kernel tells only who has read
        loop.call_soon(self._look)

    def _look(self) -> None:
        if self._fd >= 0 and not read_populated(self._fd):
            self._end()

    def _too_long(self) -> None:
        log.warning("%s: processes that were killed are still there after %g s", self._name, EMPTY_TIMEOUT)
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._done()
