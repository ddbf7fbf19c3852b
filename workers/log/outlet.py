"""The log, as lines of services go there: a line that finds no room waits, for as long as somebody reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from supervisor.loop.loop import Clock

PATIENCE = 5.0  # seconds without any room after which nobody reads: services must not wait for ever


class Log(Protocol):
    """The part of `supervisor.log.handler.LineHandler` that is used."""

    @property
    def is_full(self) -> bool: ...
    @property
    def has_much_room(self) -> bool: ...
    def offer_some(self, level: int, lines: Sequence[str]) -> int: ...
    def lose(self, lines: int = 1) -> None: ...


class Outlet:
    """`offer` says how many lines are done with: they were taken or, where nobody reads, counted as lost."""

    def __init__(self, handler: Log, clock: Clock = time.monotonic) -> None:
        self._handler = handler
        self._clock = clock
        self._full_since: float | None = None
        self._crowded_since: float | None = None  # from when on there has not been much room

    def offer(self, lines: Sequence[str]) -> int:
        """Write the first lines of a service, as many as go at once; 0: there is no room for them now."""
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
        """As `offer`, and the lines leave most of the room to others, spawnd among them, while somebody reads."""
        if self._handler.has_much_room:
            self._crowded_since = None
            return self.offer(lines)
        if self._crowded_since is None:
            self._crowded_since = self._clock()
        return self.offer(lines) if self._is_left(self._crowded_since) else 0

    def _is_left(self, since: float) -> bool:
        """Whether nobody has read for a while."""
        return self._clock() - since >= PATIENCE
