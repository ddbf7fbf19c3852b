"""The control socket: takes clients in, and gives each call to its verb."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial

from supervisor.control.access import permitted
from supervisor.control.clients import Clients
from supervisor.control.core import Core
from supervisor.control.discard import Discard
from supervisor.control.errors import (
    ControlError,
    Failed,
    InvalidParameter,
    MethodNotFound,
    PermissionDenied,
    TooManyClients,
)
from supervisor.control.listener import open_listener
from supervisor.control.verbs import METHODS
from supervisor.linux.peers import Credentials, peer_credentials
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.varlink.acceptor import Acceptor
from supervisor.varlink.connection import Connection, Host, Record
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.turns import Turns

MAX_REFUSED = 128  # clients that are told why they are refused; more are only closed
REFUSED_LIMIT = 1 << 16  # bytes of the call that is answered with the refusal
REFUSED_TIMEOUT = 10.0  # seconds for a client to make that call


class Server:
    """Owns the listening socket at `path` and every connection.  Raises RuntimeFolderError."""

    def __init__(self, loop: Loop, core: Core, path: str, kept: Record | None = None) -> None:
        """Without `kept` a new socket; with what `kept` returned in an earlier process, its socket and connections."""
        self._loop = loop
        self._core = core
        self._path = path
        self._clients = Clients()
        self._refused: dict[Connection, Timer] = {}
        self._discard = Discard(loop)
        self._turns = Turns(loop)
        self._host = Host(self._serve, self._clients.remove, self._turns.add, self._clients.holds, self._discard)
        self._listener = open_listener(path) if kept is None else _inherited(kept["listener"])
        self._acceptor = Acceptor(loop, self._listener, self._take_in)
        for record in kept["connections"] if kept is not None else ():
            sock = _inherited(record["fd"])
            self._connect(sock, peer_credentials(sock)).resume(record)

    def kept(self) -> Record:
        """What another process needs to go on with the socket and the connections; refused clients are left out."""
        connections = [connection.kept() for connection in self._clients]
        return {"listener": self._listener.fileno(), "connections": connections}

    def close(self) -> None:
        """Close every connection and the socket, and remove it from the run-time folder."""
        self._acceptor.stop()
        with suppress(OSError):
            os.unlink(self._path)
        with suppress(OSError):
            while True:  # nobody can come any more; who waits may have left anything
                self._discard(self._listener.accept()[0])
        self._listener.close()
        self._clients.close()
        for connection in list(self._refused):
            connection.close()
        self._discard.flush()

    # clients

    def _take_in(self, sock: socket.socket) -> None:
        """Decide what this client may do; takes over its socket."""
        try:
            client = peer_credentials(sock)
            is_permitted = permitted(client, sock, self._core.settings.control_group)
        except OSError:
            self._discard(sock)
            return
        if not is_permitted:
            self._refuse(sock, client, PermissionDenied())
        elif not self._clients.make_room(client):
            self._refuse(sock, client, TooManyClients())
        else:
            self._connect(sock, client).read_now()

    def _connect(self, sock: socket.socket, client: Credentials) -> Connection:
        connection = Connection(self._loop, sock, client, self._host)
        self._clients.add(connection)
        return connection

    def _refuse(self, sock: socket.socket, client: Credentials, error: ControlError) -> None:
        """Have the client's first call answered with the error."""
        if len(self._refused) >= MAX_REFUSED:
            self._discard(sock)
            return
        fail = partial(Exchange.fail, error=error)
        host = Host(fail, self._forget, self._turns.add, discard=self._discard, limit=REFUSED_LIMIT)
        connection = Connection(self._loop, sock, client, host)
        self._refused[connection] = self._loop.call_later(REFUSED_TIMEOUT, connection.close)

    def _forget(self, connection: Connection) -> None:
        self._refused.pop(connection).cancel()

    # calls

    def _serve(self, exchange: Exchange) -> None:
        try:
            if exchange.call.upgrade:
                raise InvalidParameter("upgrade")
            handler = METHODS.get(exchange.call.method)
            if handler is None:
                raise MethodNotFound(exchange.call.method)
            handler(exchange, self._core)
        except ControlError as error:
            exchange.fail(error)
        except Exception as error:
            log.error("unexpected error in %s", exchange.call.method, exc_info=error)
            exchange.fail(Failed(f"unexpected error: {error}"))


def _inherited(fd: int) -> socket.socket:
    """A socket that this process had before its exec, and nobody else is to have."""
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)
