"""When the kernel's events are read: in ticks, all that there are by then.

While each tick has some, nobody has to wake us up for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from workers.reaper.schedule import tick_from
from workers.reaper.watches import Watches

Event = tuple[int, int, str]  # of `Watches.read`


class Hearing:
    """`take` is given events, `work` is called after that, when it is time to see to them.  Neither raises."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watches: Watches,
        take: Callable[[Sequence[Event]], None],
        work: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._watches = watches
        self._take = take
        self._work = work
        self._next: asyncio.Handle | None = None
        self._heard = False  # there were events since the last tick

    def start(self) -> None:
        self._loop.add_reader(self._watches.fileno(), self._wake_up)

    def close(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        if self._next is not None:
            self._next.cancel()

    def take_some(self) -> None:
        """Between two ticks: those that are there already need not wake us up."""
        self._read()

    def _read(self) -> bool:
        """Whether there may be more."""
        events, more = self._watches.read()
        self._heard = self._heard or bool(events)
        self._take(events)
        return more

    def _wake_up(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        self._wait_for_tick()

    def _wait_for_tick(self) -> None:
        self._next = self._loop.call_at(tick_from(self._loop.time()), self._tick)

    def _tick(self) -> None:
        if self._read():
            self._next = self._loop.call_soon(self._tick)
        elif self._heard:
            self._wait_for_tick()
        else:
            self.start()
        self._heard = False
        self._work()
