"""When names expire: one timer, for the earliest of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from supervisor.loop.loop import Loop, Timer
from workers.accessory.entry import Entry

AT_ONCE = 256  # names that expire before others have their turn


class Expiry:
    """Calls `expired(entry)` for each that has not been touched for `after` seconds and is not leased.

    A name waits here at most once.  One that was touched meanwhile is looked at again when it would
    be due now, so that to be touched costs it nothing.
    """

    def __init__(self, loop: Loop, after: float, expired: Callable[[Entry], None]) -> None:
        self._loop = loop
        self._after = after
        self._expired = expired
        self._heap: list[tuple[float, int, Entry]] = []
        self._timer: Timer | None = None

    def when(self, entry: Entry) -> float:
        """When it is due, on the loop's clock, if nobody asks for it any more."""
        return entry.touched + self._after

    def left(self, entry: Entry) -> float:
        """Seconds until it is due, 0 where that is now."""
        return max(0.0, self.when(entry) - self._loop.clock())

    def wait(self, entry: Entry) -> None:
        """Look at an entry that is not leased."""
        if not entry.waits:
            entry.waits = True
            heapq.heappush(self._heap, (self.when(entry), entry.id, entry))
            self._arm()

    def _arm(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._timer is not None and self._timer.when > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.clock()
        for _ in range(AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                break
            _, _, entry = heapq.heappop(self._heap)
            entry.waits = False
            if entry.is_leased:
                continue
            if self.when(entry) > now:
                self.wait(entry)
            else:
                self._expired(entry)
        self._arm()
