"""Accepting on a control socket without spinning where there is no room, and taking turns.

Calls of many clients must not hold up everything else: they are served one after the other.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable

from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer

ACCEPTS = 128  # clients taken in one after the other before others have their turn
SLICE = 0.002  # seconds for that: clients that leave descriptors behind take long
ACCEPT_PAUSE = 1.0  # seconds; without descriptors or memory the socket stays readable, and accepting would spin
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

SHARE = 0.002  # seconds of each round of the loop; what takes longer has a round to itself


class Acceptor:
    """Gives each new client of the listening socket to `take_in`, which owns it.  The listener stays the caller's."""

    def __init__(self, loop: Loop, listener: socket.socket, take_in: Callable[[socket.socket], None]) -> None:
        self._loop = loop
        self._listener = listener
        self._take_in = take_in
        self._pause: Timer | None = None
        self._watching = False
        listener.setblocking(False)
        self.go_on()

    def go_on(self) -> None:
        """Accept, also after `stop`."""
        self._pause = None
        if not self._watching:
            self._watching = True
            self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def stop(self) -> None:
        """Leave those who come in the backlog."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._watching:
            self._watching = False
            self._loop.unwatch(self._listener.fileno())

    def _accept(self, _events: int) -> None:
        end = self._loop.clock() + SLICE
        try:
            for _ in range(ACCEPTS):
                if self._watching and self._loop.clock() <= end:
                    self._take_in(self._listener.accept()[0])
        except OSError as error:
            if error.errno in NO_ROOM:
                log.warning("cannot accept on the control socket: %s; trying again in 1 s", error.strerror)
                self.stop()
                self._pause = self._loop.call_later(ACCEPT_PAUSE, self.go_on)
            # any other is of this one client (it hung up), or says that there are no more


class Turns:
    """Does what it is given in the order given, in later rounds of the loop, and leaves most of each to others."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        self._planned = False

    def add(self, action: Callable[[], None]) -> None:
        self._queue.append(action)
        self._plan()

    def _plan(self) -> None:
        if self._queue and not self._planned:
            self._planned = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        end = self._loop.clock() + SHARE
        try:
            while self._queue:
                self._queue.popleft()()
                if self._loop.clock() >= end:
                    break
        finally:
            self._planned = False
            self._plan()
