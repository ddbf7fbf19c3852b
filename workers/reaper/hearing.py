"""When the kernel's events are read: whenever we are awake for something else, and from time to time.

So as long as there are some again and again nobody has to wake us up for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from workers.reaper.watches import Watches

SOON = 0.02  # seconds from the first event until it is read, with those that came after it
PAUSE = 0.066  # seconds until those that follow are, unless we are awake before: longer than until the next deletion

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
        self._next: asyncio.Handle | None = None  # when they are read; without it the kernel wakes us up

    def start(self) -> None:
        self._loop.add_reader(self._watches.fileno(), self._wake_up)

    def close(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        if self._next is not None:
            self._next.cancel()

    def take_some(self) -> None:
        """Those that are there by now, as we are awake."""
        heard, more = self._read()
        if (heard or more) and self._next is not None:
            self._wait(more)

    def _read(self) -> tuple[bool, bool]:
        """Whether there were any, but for ends of watches, and whether there may be more."""
        events, more = self._watches.read()
        self._take(events)
        return bool(events), more

    def _wake_up(self) -> None:
        self._loop.remove_reader(self._watches.fileno())
        self._next = self._loop.call_later(SOON, self._look)

    def _wait(self, more: bool = False) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_soon(self._look) if more else self._loop.call_later(PAUSE, self._look)

    def _look(self) -> None:
        self._wait()  # whatever becomes of this look, there is another one
        heard, more = self._read()
        if more:
            self._wait(more)
        elif not heard and self._next is not None:
            self.start()
            self._next.cancel()
            self._next = None
        self._work()
