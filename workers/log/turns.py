"""Passing on lines of all services, in turns."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from supervisor.loop.loop import Loop, Timer
from workers.log.outlet import Outlet
from workers.log.stream import Offer, Stream

SHARE = 64  # lines of a service per turn: less than a millisecond
PAUSE = 0.005  # seconds until a full log is tried again



class Turns:
    """Turns of the streams; calls `passed(stream)` whenever a stream has passed on lines."""

    def __init__(self, loop: Loop, outlet: Outlet, passed: Callable[[Stream], None]) -> None:
        self._loop = loop
        self._outlet = outlet
        self._passed = passed
        self._queue: deque[Stream] = deque()
        self._planned: Timer | None = None

    def add(self, stream: Stream) -> None:
        """Queue a stream that may have lines."""
        if stream not in self._queue:
            self._queue.append(stream)
        self._plan(0)

    def _plan(self, seconds: float) -> None:
        if self._planned is None:
            self._planned = self._loop.call_later(seconds, self._turn)

    def _turn(self) -> None:
        self._planned = None
        went_on = self._round(self._outlet.offer_from_flood)
        if self._queue:
            self._plan(0 if went_on else PAUSE)

    def _round(self, offer_from_flood: Offer) -> bool:
        """Let each stream pass on its share; return False if none could."""
        went_on = False
        for _ in range(len(self._queue)):
            stream = self._queue.popleft()
            floods = stream.floods
            taken = stream.pass_on(offer_from_flood if floods else self._outlet.offer, SHARE)
            if stream.has_lines():
                self._queue.append(stream)
            if taken:
                went_on = True
                self._passed(stream)
            elif not floods:
                self._queue.rotate(1)  # the log is full for all other streams as well, and this one is the next
                break
        return went_on

    def finish(self, seconds: float) -> None:
        """Pass on all lines before the end of this process, waiting for room up to a time limit in seconds."""
        end = self._loop.clock() + seconds
        while self._queue and self._loop.clock() < end:
            if not self._round(self._outlet.offer):
                time.sleep(PAUSE)
