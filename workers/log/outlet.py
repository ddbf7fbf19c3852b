"""The log, as lines of services go there: a line that finds no room waits, for as long as somebody reads."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from supervisor.loop.loop import Clock

PATIENCE = 5.0  # seconds without any room after which nobody reads: services must not wait for ever


class Log(Protocol):
    """The part of `supervisor.log.handler.LineHandler` that is used."""

    @property
    def is_full(self) -> bool: ...
    @property
    def has_much_room(self) -> bool: ...
    def offer(self, level: int, line: str) -> bool: ...
    def lose(self) -> None: ...


class Outlet:
    """`offer` says whether a line is done with: it was taken or, where nobody reads, counted as lost."""

    def __init__(self, handler: Log, clock: Clock = time.monotonic) -> None:
        self._handler = handler
        self._clock = clock
        self._full_since: float | None = None
        self._crowded_since: float | None = None  # from when on there has not been much room

    def offer(self, line: str) -> bool:
        """Write a line of a service; False: there is no room for it now."""
        if self._handler.offer(logging.INFO, line):
            self._full_since = None
            return True
        if self._full_since is None:
            self._full_since = self._clock()
        if self._handler.is_full and not self._is_left(self._full_since):
            return False
        self._handler.lose()
        return True

    def offer_from_flood(self, line: str) -> bool:
        """As `offer`, and the line leaves most of the room to others, spawnd among them, while somebody reads."""
        if self._handler.has_much_room:
            self._crowded_since = None
            return self.offer(line)
        if self._crowded_since is None:
            self._crowded_since = self._clock()
        return self._is_left(self._crowded_since) and self.offer(line)

    def _is_left(self, since: float) -> bool:
        """Whether nobody has read for a while."""
        return self._clock() - since >= PATIENCE
