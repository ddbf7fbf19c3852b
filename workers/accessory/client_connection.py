"""One client: datagrams in, answers out, in their order."""

from __future__ import annotations

import os
import select
import socket
import struct
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from supervisor.log.logger import log
from supervisor.notify.foreign import close_foreign
from supervisor.notify.protocol import MAX_DESCRIPTORS
from workers.accessory.errors import NotAllowed, ProtocolError, Refused
from workers.accessory.protocol import MAX_DATAGRAM, encode_error, encode_reply, parse_request
from workers.accessory.tenant import Tenant

if TYPE_CHECKING:
    from workers.accessory.names import Names
    from workers.accessory.server import Server

EVENTS = select.EPOLLIN | select.EPOLLRDHUP
_GONE = select.EPOLLHUP | select.EPOLLRDHUP
_SPACE = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
# as numbers: to combine two members of an enumeration costs as much as a system call
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

Ancillary = list[tuple[int, int, Any]]


class Inbox:
    """Where datagrams are received, one after the other: a byte more than one may have."""

    def __init__(self) -> None:
        self.buffers = [bytearray(MAX_DATAGRAM + 1)]
        self.view = memoryview(self.buffers[0])


class ClientConnection:
    """Owns its socket.  `tenant` is who it is, or why it may not ask for anything."""

    __slots__ = ("_inbox", "_names", "_receive", "_server", "sock", "tenant", "uid")

    def __init__(self, server: Server, sock: socket.socket, uid: int, tenant: Tenant | NotAllowed) -> None:
        self._server = server
        self._names: Names = server.names
        self._inbox = server.inbox
        self._receive = sock.recvmsg_into
        self.sock = sock
        self.uid = uid
        self.tenant = tenant

    def on_event(self, events: int) -> None:
        """Take one datagram: who sends many has its turn like everybody else."""
        try:
            size, ancillary, _flags, _address = self._receive(self._inbox.buffers, _SPACE, _RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        if ancillary:
            close_passed(ancillary)
        if not size and events & _GONE:
            self.end(is_empty=True)
            return
        self._server.counters.requests += 1
        datagram = bytes(self._inbox.view[:size])
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
            # what is left would make our peer lose what we have told it, and what came along is not to be waited for
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RD)
            _drain(self.sock)
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


def close_passed(ancillary: Ancillary) -> None:
    """Close the descriptors that came along."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4]):
                close_foreign(fd)


def _rights(fds: Sequence[int]) -> Ancillary:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]


def _drain(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            data, ancillary, _flags, _address = sock.recvmsg(1, _SPACE, _RECEIVE)
            close_passed(ancillary)
            if not data:
                return
