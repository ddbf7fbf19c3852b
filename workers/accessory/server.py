"""The listening socket and its clients: their rights, their datagrams, and answers in the same order."""

from __future__ import annotations

import os
import select
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisor.linux.peers import Credentials, peer_groups
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.notify.safe_close import Closer, PidfdReaper
from supervisor.printable import count
from workers.accessory.entry import Account, Accounts, AnswerCache, Answers
from workers.accessory.inbox import Ancillary, CarriesDescriptors, Disposal, Inbox, receiver
from workers.accessory.options import Allowance, Options
from workers.accessory.protocol import (
    NotAllowed,
    ProtocolError,
    Refused,
    Request,
    encode_error,
    encode_reply,
    parse_request,
)
from workers.accessory.registry import Registry
from workers.accessory.rights import SHARED, Rights, rights_of

PAUSE = 0.1  # seconds; without descriptors the socket stays readable, and accepting would spin
MOST_CACHES = 1024  # caches that are kept
MOST_STRANGERS = 64  # connections of clients without rights, in total, until they send a request
EVENTS = select.EPOLLIN | select.EPOLLRDHUP
NOTHING = Allowance()
UNKNOWN = -1  # the user that a client without credentials is charged to
# numbers, because combining two members of an enumeration costs as much as a system call
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_SOCKET = int(socket.SOL_SOCKET)
_UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7)
_PID_SIZE = struct.calcsize("i")


@dataclass(slots=True)
class Counters:
    """Counts since the start of this process; `dropped` counts clients that did not read."""

    connections: int = 0
    requests: int = 0
    errors: int = 0
    dropped: int = 0


class Server:
    """Owns the listening socket and all connections, except those in `disposal`.

    `changed` is called when a connection comes or goes.
    """

    def __init__(
        self, loop: Loop, listener: socket.socket, registry: Registry, accounts: Accounts, options: Options
    ) -> None:
        self.registry = registry
        self.inbox = Inbox(Closer(loop, PidfdReaper(loop, loop)).close)
        self.counters = Counters()
        self._loop = loop
        self._listener = listener
        self._accounts = accounts
        self._options = options
        self._caches: dict[Rights, AnswerCache] = {}
        # by the kernel's bytes of uid and gid, for clients that may map any id
        self._spawners: dict[bytes, AnswerCache] = {}
        self._connections: set[ClientConnection] = set()
        self._strangers = 0
        self.disposal = Disposal(loop, self._drain)
        self.changed: Callable[[], None] = lambda: None
        listener.setblocking(False)
        listener.setsockopt(_SOCKET, socket.SO_PASSCRED, 1)  # connections inherit it
        self._go_on()

    @property
    def clients(self) -> int:
        return len(self._connections)

    def status(self) -> str:
        """Return the status text."""
        names, leases = count(len(self.registry), "name"), count(self.registry.leases, "lease")
        return f"{names}, {leases}, {count(self.clients, 'client')}"

    def forget(self, connection: ClientConnection) -> bool:
        """Remove a connection that ends; return False if that was done before."""
        if connection not in self._connections:
            return False
        self._loop.unwatch(connection.sock.fileno())
        self._connections.discard(connection)
        connection.account.charge("connections", -1, -1)
        self._strangers -= isinstance(connection.known, NotAllowed)
        self.changed()
        return True

    def stop(self) -> None:
        """Accept no more: clients that connect wait in the listen backlog for the successor."""
        self._loop.unwatch(self._listener.fileno())

    def finish(self) -> None:
        """Prepare the exit of this process, which must not wait for descriptors from untrusted clients."""
        self.stop()
        for connection in [connection for connection in self._connections if not connection.is_trusted]:
            connection.end()
        self.disposal.finish()

    def _go_on(self) -> None:
        self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _events: int) -> None:
        """Accept one client: checking for more would cost a system call for each."""
        try:
            fd, _address = self._listener._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("cannot accept: %s; trying again in %g s", error.strerror, PAUSE)
            self.stop()
            self._loop.call_later(PAUSE, self._go_on)
            return
        # like `accept`, without asking the listener three times for its kind, and without a Python subclass
        sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
        try:
            self._take_in(sock)
        except OSError as error:
            log.warning("cannot take in a client: %s", error.strerror)
            if self._drain(sock):
                sock.close()
            else:
                self.disposal.take(sock, self._accounts.of(UNKNOWN))

    def _take_in(self, sock: socket.SocketType) -> None:
        """Serve a new client. Raises OSError, and then the caller still owns the socket."""
        account, known = self._identify(sock)
        connection = ClientConnection(self, sock, account, known)
        is_stranger = isinstance(known, NotAllowed)
        is_one_too_many = is_stranger and self._strangers >= MOST_STRANGERS
        self._loop.watch(sock.fileno(), EVENTS, connection.on_event)
        self._connections.add(connection)
        account.charge("connections")
        self._strangers += is_stranger
        self.counters.connections += 1
        self.changed()
        if is_one_too_many:
            connection.end()
        else:
            connection.on_event(0)  # most clients send their request at once

    def _drain(self, sock: socket.SocketType) -> bool:
        return self.inbox.drain(sock, receiver(sock, is_trusted=False))

    def _identify(self, sock: socket.SocketType) -> tuple[Account, AnswerCache | NotAllowed]:
        """Return the client's account, and its rights or the reason why it has none.

        The client gets the reason with its first request, because it listens then.
        """
        credentials = sock.getsockopt(_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        known = self._spawners.get(credentials[_PID_SIZE:])
        pid, uid, gid = _UCRED.unpack(credentials)
        account = self._accounts.of(uid)
        try:
            if known is None:
                known = self._cache(sock, Credentials(pid, uid, gid))
                if known.rights.realm == SHARED and self._options.users.get(uid, NOTHING).any:
                    self._spawners[credentials[_PID_SIZE:]] = known
            account.check("connections", is_shared=known.rights.realm == SHARED)
        except NotAllowed as error:
            return account, error
        except Refused as error:
            return account, NotAllowed(str(error))
        return account, known

    def _cache(self, sock: socket.SocketType, peer: Credentials) -> AnswerCache:
        """Return the cache of the client's rights. Raises NotAllowed, OSError."""
        rights = rights_of(peer, lambda: peer_groups(sock), self._options)
        cache = self._caches.get(rights)
        if cache is None:
            if len(self._caches) >= MOST_CACHES:
                self._caches.clear()
                self._spawners.clear()
            cache = self._caches[rights] = AnswerCache(rights)
        return cache


class ClientConnection:
    """One client. Owns its socket. `known` has its rights, or the reason why it has none."""

    __slots__ = ("_answers", "_inbox", "_receive", "_registry", "_server", "account", "is_trusted", "known", "sock")

    def __init__(
        self, server: Server, sock: socket.SocketType, account: Account, known: AnswerCache | NotAllowed
    ) -> None:
        self._server = server
        self._registry = server.registry
        self._inbox = server.inbox
        self.sock = sock
        self.account = account
        self.known = known
        self._answers: Answers = {}
        self.is_trusted = False  # whether it may map any id
        if isinstance(known, AnswerCache):
            self._answers = known.answers
            self.is_trusted = known.rights.realm == SHARED
        self._receive = receiver(sock, self.is_trusted)

    def on_event(self, _events: int) -> None:
        """Take one datagram, so that a client with many does not delay the others."""
        is_last = False
        try:
            datagram = self._inbox.take(self._receive)
        except BlockingIOError:
            return
        except CarriesDescriptors as found:
            datagram, is_last = found.datagram, True
        except OSError:
            self.end()
            return
        if datagram is None:
            self.end(is_empty=True)
            return
        self._server.counters.requests += 1
        answer = self._answers.get(datagram)
        if answer is None and isinstance(self.known, AnswerCache):
            answer = self.known.answer_with_init(datagram)
        if answer is None:
            self._answer(datagram)
        else:
            self._registry.touch(answer[0])
            try:
                self.sock.sendmsg(answer[1], answer[2], _SEND)
            except OSError as error:
                self._lose(error)
        if is_last:
            self.end()

    def end(self, is_empty: bool = False) -> None:
        """End the connection; `is_empty`: nothing is left in it to be received. Idempotent."""
        if not self._server.forget(self):
            return
        if is_empty or self._inbox.drain(self.sock, self._receive):
            self.sock.close()
        else:
            self._server.disposal.take(self.sock, self.account)

    def _answer(self, datagram: bytes) -> None:
        try:
            request = parse_request(datagram)
            if isinstance(self.known, NotAllowed):
                raise self.known
            if request.asks_for_something:
                self._fulfil(self.known, request, datagram)
        except (ProtocolError, NotAllowed) as error:
            if self._say(error):
                self.end()
        except Refused as error:
            self._say(error)
        except Exception as error:
            log.error("accessory: unexpected error; going on", exc_info=error)
            self._say(Refused("internal error"))

    def _fulfil(self, known: AnswerCache, request: Request, datagram: bytes) -> None:
        grant = self._registry.fulfil(known.rights, self.account, request)
        reply = [encode_reply(request.kinds, request.lease)]
        if grant.lease_end >= 0:
            try:
                self._send(reply, _rights([*grant.handles, grant.lease_end]))
            finally:
                os.close(grant.lease_end)
            return
        rights = _rights(grant.handles)
        if self._send(reply, rights) and not grant.is_made:
            known.remember(datagram, (grant.entry, reply, rights), has_init=request.pid)

    def _say(self, error: Exception) -> bool:
        self._server.counters.errors += 1
        return self._send([encode_error(str(error))], [])

    def _send(self, reply: Sequence[bytes], rights: Ancillary) -> bool:
        """Send an answer. If that fails, end the connection and return False."""
        try:
            self.sock.sendmsg(reply, rights, _SEND)
        except OSError as error:
            self._lose(error)
            return False
        return True

    def _lose(self, error: OSError) -> None:
        """End a connection on which an answer cannot be sent."""
        if isinstance(error, BlockingIOError):
            self._server.counters.dropped += 1  # a client that does not read is not waited for
        self.end()


def _rights(fds: Sequence[int]) -> Ancillary:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
