"""Answers calls on the control socket in an errand, with all that it takes to speak Varlink: few ever ask.

The errand accepts whoever waits, has a copy of the worker's facts, looks at the kernel's own,
and ends with its last connection.
"""

from __future__ import annotations

import select
from typing import Any

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.netns.errand import Errand, Outcome

LIMIT = 90.0  # seconds; a connection has a minute
PAUSE = 1.0  # seconds; without processes or memory the socket stays readable, and this would spin


class Answers:
    """Owns the listening socket `fd`."""

    def __init__(self, loop: Loop, fd: int, options: dict[str, Any], record: int) -> None:
        self._loop = loop
        self._fd = fd
        self._options = options
        self._record = record
        self._listen()

    def _listen(self) -> None:
        self._loop.watch(self._fd, select.EPOLLIN, lambda _events: self._called())

    def _called(self) -> None:
        self._loop.unwatch(self._fd)  # the errand accepts them, and those that come meanwhile
        try:
            Errand(self._loop, "answering calls", self._answer, LIMIT, self._answered)
        except OSError as error:
            log.error("netns@%s: cannot answer calls: %s; trying again", self._options["name"], error.strerror)
            self._loop.call_later(PAUSE, self._listen)

    def _answered(self, outcome: Outcome) -> None:
        if outcome.problem:
            log.error("netns@%s: %s", self._options["name"], outcome.problem)
        self._listen()

    def _answer(self) -> None:
        from workers.netns.control import serve

        serve(self._fd, self._options, self._record)
