"""Output of the lines of all services to the log, in turns: lines without room wait while the log has a reader."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from supervisor.loop.loop import Clock, Loop, Timer
from workers.log.stream import Offer, Stream

PATIENCE = 5.0  # seconds without room after which the log counts as unread, as services must not wait forever
SHARE = 64  # lines of a service per turn: less than a millisecond
PAUSE = 0.005  # seconds until a full log is tried again


class Log(Protocol):
    """The used part of `supervisor.log.handler.LineHandler`."""

    @property
    def is_full(self) -> bool: ...
    @property
    def has_much_room(self) -> bool: ...
    def offer_some(self, level: int, lines: Sequence[str]) -> int: ...
    def lose(self, lines: int = 1) -> None: ...


class Outlet:
    """The log for services; `offer` returns the number of finished lines: written or, without a reader, lost."""

    def __init__(self, handler: Log, clock: Clock = time.monotonic) -> None:
        self._handler = handler
        self._clock = clock
        self._full_since: float | None = None
        self._crowded_since: float | None = None  # since when there has not been much room

    def offer(self, lines: Sequence[str]) -> int:
        """Write as many of a service's first lines as possible at once; return 0 if there is no room now."""
        taken = self._handler.offer_some(logging.INFO, lines)
        if taken:
            self._full_since = None
            return taken
        if self._full_since is None:
            self._full_since = self._clock()
        if self._handler.is_full and not self._is_left(self._full_since):
            return 0
        self._handler.lose(len(lines))
        return len(lines)

    def offer_from_flood(self, lines: Sequence[str]) -> int:
        """Do the same as `offer`, but leave most of the room to others and spawnd, while the log has a reader."""
        if self._handler.has_much_room:
            self._crowded_since = None
            return self.offer(lines)
        if self._crowded_since is None:
            self._crowded_since = self._clock()
        return self.offer(lines) if self._is_left(self._crowded_since) else 0

    def _is_left(self, since: float) -> bool:
        """Whether the log has had no reader for a while."""
        return self._clock() - since >= PATIENCE


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
