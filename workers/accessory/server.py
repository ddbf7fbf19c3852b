"""The listening socket: who connects, and who of them may ask."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.linux.peers import Credentials, peer_groups
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.accessory.access import rights_of
from workers.accessory.accounts import Accounts
from workers.accessory.client_connection import EVENTS, ClientConnection
from workers.accessory.errors import NotAllowed, Refused
from workers.accessory.inbox import Inbox, receiver
from workers.accessory.names import Names
from workers.accessory.options import Allowance, Options
from workers.accessory.rights import SHARED, Rights
from workers.accessory.tenant import Tenant

PAUSE = 0.1  # seconds; without descriptors the socket stays readable, and accepting would spin
MOST_TENANTS = 1024  # that are remembered
NOTHING = Allowance()
_SOCKET = int(socket.SOL_SOCKET)
_UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7)
_PID_SIZE = struct.calcsize("i")
MOST_STRANGERS = 64  # connections of those who get nothing, all of them together, until they ask


@dataclass(slots=True)
class Counters:
    """Since the start of this process.  `dropped` are clients that did not read."""

    connections: int = 0
    requests: int = 0
    errors: int = 0
    dropped: int = 0


class Server:
    """Owns the listening socket and all connections.  `changed` is called when one comes or goes."""

    def __init__(
        self, loop: Loop, listener: socket.socket, names: Names, accounts: Accounts, options: Options
    ) -> None:
        self.names = names
        self.inbox = Inbox()
        self.counters = Counters()
        self._loop = loop
        self._listener = listener
        self._accounts = accounts
        self._options = options
        self._tenants: dict[Rights, Tenant] = {}
        self._spawners: dict[bytes, Tenant] = {}  # by uid and gid, as the kernel has them: known at a glance
        self._connections: set[ClientConnection] = set()
        self._strangers = 0
        self.changed: Callable[[], None] = lambda: None
        listener.setblocking(False)
        listener.setsockopt(_SOCKET, socket.SO_PASSCRED, 1)  # which connections inherit
        self._go_on()

    @property
    def clients(self) -> int:
        return len(self._connections)

    def forget(self, connection: ClientConnection) -> None:
        """Its end: it is not heard any more."""
        self._loop.unwatch(connection.sock.fileno())
        self._connections.discard(connection)
        self._accounts.add(connection.uid, "connections", -1, -1)
        self._strangers -= isinstance(connection.tenant, NotAllowed)
        self.changed()

    def stop(self) -> None:
        """Take in nobody any more: who comes waits in the backlog for the successor."""
        self._loop.unwatch(self._listener.fileno())

    def _go_on(self) -> None:
        self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _events: int) -> None:
        """Take in one: a further look whether there are more would cost each of them one."""
        try:
            fd, _address = self._listener._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("cannot accept: %s; trying again in %g s", error.strerror, PAUSE)
            self.stop()
            self._loop.call_later(PAUSE, self._go_on)
            return
        # as `accept` does it, without asking the listener three times for its kind, nor a class of Python on top
        sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
        try:
            self._take_in(sock)
        except OSError as error:
            log.warning("cannot take in a client: %s", error.strerror)
            self.inbox.drain(sock, receiver(sock, is_trusted=False))
            sock.close()

    def _take_in(self, sock: socket.SocketType) -> None:
        """Raises OSError, and then the socket is still the caller's."""
        uid, tenant = self._identify(sock)
        connection = ClientConnection(self, sock, uid, tenant)
        is_one_too_many = isinstance(tenant, NotAllowed) and self._strangers >= MOST_STRANGERS
        self._loop.watch(sock.fileno(), EVENTS, connection.on_event)
        self._connections.add(connection)
        self._accounts.add(uid, "connections")
        self._strangers += isinstance(tenant, NotAllowed)
        self.counters.connections += 1
        self.changed()
        if is_one_too_many:
            connection.end()
        else:
            connection.on_event(0)  # most send their request at once

    def _identify(self, sock: socket.SocketType) -> tuple[int, Tenant | NotAllowed]:
        """Its user, and who it is, or why it gets nothing: it is told so when it asks, as then it listens."""
        credentials = sock.getsockopt(_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        tenant = self._spawners.get(credentials[_PID_SIZE:])
        pid, uid, gid = _UCRED.unpack(credentials)
        try:
            if tenant is None:
                tenant = self._tenant(sock, Credentials(pid, uid, gid))
                if tenant.rights.realm == SHARED and self._options.users.get(uid, NOTHING).any:
                    self._spawners[credentials[_PID_SIZE:]] = tenant
            self._accounts.check(uid, "connections", is_shared=tenant.rights.realm == SHARED)
        except NotAllowed as error:
            return uid, error
        except Refused as error:
            return uid, NotAllowed(str(error))
        return uid, tenant

    def _tenant(self, sock: socket.SocketType, peer: Credentials) -> Tenant:
        """Raises NotAllowed, OSError."""
        rights = rights_of(peer, lambda: peer_groups(sock), self._options)
        tenant = self._tenants.get(rights)
        if tenant is None:
            if len(self._tenants) >= MOST_TENANTS:
                self._tenants.clear()
                self._spawners.clear()
            tenant = self._tenants[rights] = Tenant(rights)
        return tenant
