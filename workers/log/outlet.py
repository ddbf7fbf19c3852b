"""Output of services' lines to the log: lines without room wait while the log has a reader."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from supervisor.loop.loop import Clock

PATIENCE = 5.0  # seconds without room after which the log counts as unread, as services must not wait forever


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
