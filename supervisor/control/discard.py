"""Getting rid of clients that left descriptors in their connections, without waiting for what these do when closed.

The last close of a socket with SO_LINGER waits for its peer (socket(7)) unless the process
that closes it is about to end.  So such connections are left to a child that does nothing but
end, and whatever waits then is not spawnd.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.fork import fork
from supervisor.varlink.stream import has_descriptors

PAUSE = 0.5  # seconds: one child for all that came meanwhile
MOST = 64  # connections that wait for it


class Discard:
    """Closes what it is given.  Owns the connections that wait for their child."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._doomed: list[socket.socket] = []
        self._timer: Timer | None = None

    def __call__(self, sock: socket.socket) -> None:
        if not has_descriptors(sock):
            sock.close()
            return
        self._doomed.append(sock)
        if len(self._doomed) >= MOST:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self.flush)

    def flush(self) -> None:
        """Close all that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._doomed:
            return
        doomed, self._doomed = self._doomed, []
        try:
            close_in_child(doomed)
        except OSError as error:
            log.warning("cannot close %d control connections: %s; trying again", len(doomed), error.strerror)
            self._doomed += doomed
            self._timer = self._loop.call_later(PAUSE, self.flush)


def close_in_child(socks: Iterable[socket.socket]) -> None:
    """Close sockets so that the last close is that of a child which ends.  Raises OSError, and then none is closed."""
    fds = [sock.fileno() for sock in socks]
    waiting, begin = os.pipe2(os.O_CLOEXEC)
    try:
        fork(lambda: _end_with(fds, waiting))
        for sock in socks:
            sock.close()
    finally:
        os.close(waiting)
        os.close(begin)  # which the child waits for


def _end_with(fds: list[int], waiting: int) -> None:
    """In the child: keep these descriptors, and nothing else of spawnd's, until spawnd has closed its own."""
    first = 0
    for fd in sorted((*fds, waiting)):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, LAST_DESCRIPTOR)
    os.read(waiting, 1)
    os._exit(0)
