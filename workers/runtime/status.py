"""A worker's status text, messages to its watchdog, and its veto against sleep: sd_notify(3)."""

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
    spawnd; if it returns False, the line is sent again. `is_busy`, asked at each change, says whether the worker
    has work that forbids it to sleep.
    """

    def __init__(
        self,
        loop: Later,
        say: Callable[[str], object],
        text: Callable[[], str],
        is_busy: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._say = say
        self._text = text
        self._is_busy = is_busy
        self._veto = Veto(loop, say)
        self._said = ""
        self._timer: object | None = None
        self._look()

    def changed(self) -> None:
        """Compute the text soon, for which further calls until then cost nothing; raise or withdraw the veto now."""
        if self._is_busy is not None:
            self._veto.hold(self._is_busy())
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


class Veto:
    """Veto of a worker against being put to sleep, for work that neither a connection nor CPU time tells of.

    `say` sends a line to spawnd; if it returns False, the line is sent again. The end of the work is told a moment
    later, so work that comes and goes costs few lines.
    """

    def __init__(self, loop: Later, say: Callable[[str], object]) -> None:
        self._loop = loop
        self._say = say
        self._is_busy = False
        self._said = False
        self._timer: object | None = None

    def hold(self, is_busy: bool) -> None:
        """Raise the veto, or withdraw it."""
        self._is_busy = is_busy
        if is_busy == self._said or self._timer is not None:
            return
        if is_busy:
            self._tell()
        else:
            self._timer = self._loop.call_later(PAUSE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        is_busy = self._is_busy
        if is_busy == self._said:
            return
        if self._say(f"X_SPAWND_BUSY={int(is_busy)}") is False:
            self._timer = self._loop.call_later(PAUSE, self._tell)
        else:
            self._said = is_busy
