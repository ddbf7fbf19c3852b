"""One client: datagrams in, answers out, in their order."""

from __future__ import annotations

import os
import select
import socket
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from supervisor.log.logger import log
from workers.accessory.errors import NotAllowed, ProtocolError, Refused
from workers.accessory.inbox import Ancillary, receiver
from workers.accessory.protocol import encode_error, encode_reply, parse_request
from workers.accessory.rights import SHARED
from workers.accessory.tenant import Tenant

if TYPE_CHECKING:
    from workers.accessory.names import Names
    from workers.accessory.server import Server

EVENTS = select.EPOLLIN | select.EPOLLRDHUP
# as a number: to combine two members of an enumeration costs as much as a system call
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class ClientConnection:
    """Owns its socket.  `tenant` is who it is, or why it may not ask for anything."""

    __slots__ = ("_inbox", "_names", "_receive", "_server", "sock", "tenant", "uid")

    def __init__(self, server: Server, sock: socket.SocketType, uid: int, tenant: Tenant | NotAllowed) -> None:
        self._server = server
        self._names: Names = server.names
        self._inbox = server.inbox
        self._receive = receiver(sock, isinstance(tenant, Tenant) and tenant.rights.realm == SHARED)
        self.sock = sock
        self.uid = uid
        self.tenant = tenant

    def on_event(self, _events: int) -> None:
        """Take one datagram: who sends many has its turn like everybody else."""
        try:
            datagram = self._inbox.take(self._receive)
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        if datagram is None:
            self.end(is_empty=True)
            return
        self._server.counters.requests += 1
        tenant = self.tenant
        answer = tenant.answers.get(datagram) if isinstance(tenant, Tenant) else None
        if answer is not None:
            self._names.touch(answer[0])
            self._send(answer[1], answer[2])
        else:
            self._answer(datagram)

    def end(self, is_empty: bool = False) -> None:
        """End the connection; `is_empty`: nothing is left in it to be received."""
        self._server.forget(self)
        if not is_empty:
            self._inbox.drain(self.sock, self._receive)
        self.sock.close()

    def _answer(self, datagram: bytes) -> None:
        try:
            request = parse_request(datagram)
            if isinstance(self.tenant, NotAllowed):
                raise self.tenant
            if request.asks_for_something:
                self._fulfil(self.tenant, request, datagram)
        except (ProtocolError, NotAllowed) as error:
            if self._say(error):
                self.end()
        except Refused as error:
            self._say(error)
        except Exception as error:
            log.error("accessory: unexpected error; going on", exc_info=error)
            self._say(Refused("internal error"))

    def _fulfil(self, tenant: Tenant, request: Any, datagram: bytes) -> None:
        grant = self._names.fulfil(tenant.rights, request)
        reply = [encode_reply(request.kinds, request.lease)]
        if grant.lease_end >= 0:
            try:
                self._send(reply, _rights([*grant.handles, grant.lease_end]))
            finally:
                os.close(grant.lease_end)
            return
        rights = _rights(grant.handles)
        if self._send(reply, rights) and not grant.is_made:
            tenant.remember(datagram, (grant.entry, reply, rights))

    def _say(self, error: Exception) -> bool:
        self._server.counters.errors += 1
        return self._send([encode_error(str(error))], [])

    def _send(self, reply: Sequence[bytes], rights: Ancillary) -> bool:
        """Send an answer.  False where that cannot be, and then the connection has ended."""
        try:
            self.sock.sendmsg(reply, rights, _SEND)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                self._server.counters.dropped += 1  # it does not read, and we do not wait for it
            self.end()
            return False
        return True


def _rights(fds: Sequence[int]) -> Ancillary:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
