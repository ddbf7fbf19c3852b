"""Calls that never overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SerialCall:
    """A call that never overlaps with itself. Requests during a call cause one more call after it.

    `call` starts the call and returns its end.
    """

    def __init__(self, call: Callable[[], asyncio.Future[bool]]) -> None:
        self._call = call
        self._running = False
        self._again = False

    def request(self) -> None:
        self._again = True
        if not self._running:
            self._start()

    def _start(self) -> None:
        self._again = False
        self._running = True
        self._call().add_done_callback(self._ended)

    def _ended(self, ended: asyncio.Future[bool]) -> None:
        self._running = False
        if self._again and not ended.cancelled():
            self._start()
