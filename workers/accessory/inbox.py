"""Receiving datagrams, and getting rid of the descriptors that come along.

To be rid of one may take for ever: sockets linger, and the server of a file may never answer, not even when this
process is to end.  Who may map any ids is no danger that it was not before, and is served fast: what comes
along is received, and closed with care.  Others are looked at first, and what comes along
with a datagram of theirs is never received: the kernel lets go of it in a child.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from supervisor.notify.foreign import close_foreign
from supervisor.notify.protocol import MAX_DESCRIPTORS
from workers.accessory.program import drop_datagram
from workers.accessory.protocol import MAX_DATAGRAM

_CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("iII"))
_ALL = _CREDENTIALS + socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
# as numbers: to combine two members of an enumeration costs as much as a system call
_TAKE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_LOOK = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_CUT = int(socket.MSG_CTRUNC)

Ancillary = list[tuple[int, int, Any]]
Receive = Callable[[list[bytearray], int, int], tuple[int, Ancillary, int, Any]]


class Inbox:
    """Where datagrams are received, one after the other: a byte more than one may have."""

    def __init__(self) -> None:
        self._buffers = [bytearray(MAX_DATAGRAM + 1)]
        self._view = memoryview(self._buffers[0])

    def take(self, receive: Receive) -> bytes | None:
        """A datagram; None at the end of all.  Raises OSError, BlockingIOError where there is none.

        With each datagram come its sender's credentials: nothing else tells one of no bytes
        from the end, and there may be more behind it.
        """
        size, ancillary, _flags, _address = receive(self._buffers, _ALL, _TAKE)
        if len(ancillary) != 1:
            if not ancillary:
                return None
            _close_passed(ancillary)
        return bytes(self._view[:size])

    def drain(self, sock: socket.SocketType, receive: Receive) -> None:
        """End receiving, and take all that is left: it would make our peer lose what we have told it, and the end of
        the socket would wait for what came along.
        """
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
        for _ in range(2):  # that its peer was closed early is told of once, before what that has left
            with suppress(OSError):
                while self.take(receive) is not None:
                    pass
                return


def receiver(sock: socket.SocketType, is_trusted: bool) -> Receive:
    """How to receive from a client."""
    return sock.recvmsg_into if is_trusted else partial(_receive_warily, sock)


def _receive_warily(
    sock: socket.SocketType, buffers: list[bytearray], space: int, flags: int
) -> tuple[int, Ancillary, int, Any]:
    """As `recvmsg_into`, without descriptors."""
    # a look has references of its own to what came along, so to drop those closes nothing: unix(7), MSG_CTRUNC
    found = sock.recvmsg_into(buffers, _CREDENTIALS, _LOOK)
    if found[2] & _CUT:
        try:
            drop_datagram(sock.fileno())
        except OSError:  # there are no processes to be had
            return sock.recvmsg_into(buffers, space, flags)
    elif found[1]:
        sock.recv(1, flags)
    return found


def _close_passed(ancillary: Ancillary) -> None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            close_foreign(fd for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4]))
