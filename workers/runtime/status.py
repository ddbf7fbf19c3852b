"""A worker's status text, and messages to its watchdog: sd_notify(3)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

PAUSE = 1.0  # seconds


class Later(Protocol):
    """The project's own loop, or that of asyncio."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class StatusLine:
    """Sends `STATUS=`: the text is computed at most once a second, and sent after a change.

    `text` returns the present text; `changed` has to be called when it may differ. `say` sends a line to
    spawnd; if it returns False, the line is sent again.
    """

    def __init__(self, loop: Later, say: Callable[[str], object], text: Callable[[], str]) -> None:
        self._loop = loop
        self._say = say
        self._text = text
        self._said = ""
        self._timer: object | None = None
        self._look()

    def changed(self) -> None:
        """Compute the text soon; further calls until then cost nothing."""
        if self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self._look)

    def _look(self) -> None:
        self._timer = None
        text = self._text()
        if text == self._said:
            return
        if self._say(f"STATUS={text}") is False:
            self.changed()
        else:
            self._said = text


def feed_watchdog(loop: Later, say: Callable[[str], object]) -> None:
    """Send `WATCHDOG=1` twice per interval, if spawnd has requested it: sd_watchdog_enabled(3)."""
    interval = os.environ.pop("WATCHDOG_USEC", "")
    if not interval.isdecimal() or not int(interval) or os.environ.pop("WATCHDOG_PID", "") != str(os.getpid()):
        return
    pause = int(interval) / 2_000_000

    def feed() -> None:
        loop.call_later(pause, feed)
        say("WATCHDOG=1")

    feed()
