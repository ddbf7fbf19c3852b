"""A worker's control socket on the project's own loop.

Whoever can connect is root already, or the worker's own user: the socket is spawnd's, in a
folder that only those can enter.  It is looked at again, as a descriptor can be passed on.
No peer is waited for, whatever it does: it has `LIFETIME` for its calls, and `MAX_CONNECTIONS`
at once have theirs; those behind them wait in the backlog.
"""

from __future__ import annotations

import os
import socket

from supervisor.linux.peers import peer_credentials
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.varlink.acceptor import Acceptor
from supervisor.varlink.connection import Connection, Host
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.turns import Turns
from workers.runtime.control import Control
from workers.runtime.descriptors import CONTROL as CONTROL

MAX_CONNECTIONS = 64
LIFETIME = 60.0  # seconds; spawnd makes a connection for each call


class ControlSocket:
    """Owns the listening socket `fd` and the connections to it."""

    def __init__(self, loop: Loop, fd: int, control: Control) -> None:
        self._loop = loop
        self._control = control
        self._connections: dict[Connection, Timer] = {}
        self._host = Host(self._serve, self._closed, Turns(loop).add)
        self._listener = socket.socket(fileno=fd)
        self._acceptor = Acceptor(loop, self._listener, self._take_in)

    @property
    def is_idle(self) -> bool:
        """Whether there is no connection; somebody may wait for one."""
        return not self._connections

    def close(self) -> None:
        """End all connections; who waits in the backlog waits for the successor."""
        for connection in list(self._connections):
            connection.close()
        self._acceptor.stop()
        self._listener.close()

    def _take_in(self, sock: socket.socket) -> None:
        try:
            client = peer_credentials(sock)
        except OSError:
            sock.close()
            return
        if client.uid not in (0, os.geteuid()):
            log.warning("control socket: connection of uid %d, pid %d refused", client.uid, client.pid)
            sock.close()
            return
        connection = Connection(self._loop, sock, client, self._host)
        self._connections[connection] = self._loop.call_later(LIFETIME, connection.close)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._acceptor.stop()

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection).cancel()
        if len(self._connections) < MAX_CONNECTIONS:
            self._acceptor.go_on()

    def _serve(self, exchange: Exchange) -> None:
        exchange.finish(*self._control.answer(exchange.call))
