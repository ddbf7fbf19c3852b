"""One after the other: what many clients want done must not keep everything else waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from supervisor.loop.loop import Loop

SHARE = 0.002  # seconds of each round of the loop; what takes longer has a round to itself


class Turns:
    """Does what it is given in the order given, in later rounds of the loop, and leaves most of each to others."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        self._planned = False

    def add(self, action: Callable[[], None]) -> None:
        self._queue.append(action)
        self._plan()

    def _plan(self) -> None:
        if self._queue and not self._planned:
            self._planned = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        end = self._loop.clock() + SHARE
        try:
            while self._queue:
                self._queue.popleft()()
                if self._loop.clock() >= end:
                    break
        finally:
            self._planned = False
            self._plan()
