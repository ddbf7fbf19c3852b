"""A worker's status text, `STATUS=` of sd_notify(3): looked at once a second, said where it has changed."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.loop.loop import Loop, Timer

PAUSE = 1.0  # seconds


class StatusLine:
    """`say` says a line to spawnd, `text` is how it stands now; `changed` is to be called when that may differ."""

    def __init__(self, loop: Loop, say: Callable[[str], object], text: Callable[[], str]) -> None:
        self._loop = loop
        self._say = say
        self._text = text
        self._said = ""
        self._timer: Timer | None = None
        self._look()

    def changed(self) -> None:
        """Nothing is done before the next look, however often it is called."""
        if self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self._look)

    def _look(self) -> None:
        self._timer = None
        text = self._text()
        if text != self._said:
            self._said = text
            self._say(f"STATUS={text}")
