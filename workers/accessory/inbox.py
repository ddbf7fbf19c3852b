"""Receiving datagrams, and closing the descriptors that arrive with them.

Closing a descriptor may take for ever, even at the exit of this process, and no signal helps: a socket lingers, a
packet socket waits for the kernel, the server of a file never answers. A client that may map any id could be root
anyway, so it takes the fast path: its descriptors are received, and closed safely. A datagram of any other client is
inspected first. If it carries descriptors, it stays in the queue and is the last of its connection, which goes to
`Disposal`. There a child takes the datagram, and no other process waits for the child.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.notify.untrusted import MAX_DESCRIPTORS
from workers.accessory.c_helpers import DISPOSALS, DISPOSED, start_disposal
from workers.accessory.entry import Account
from workers.accessory.protocol import MAX_DATAGRAM

PAUSE = 0.02  # seconds between two checks of the children, without a pidfd for each
_CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("iII"))
_ALL = _CREDENTIALS + socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
# numbers, because combining two members of an enumeration costs as much as a system call
_TAKE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_LOOK = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_CUT = int(socket.MSG_CTRUNC)

Batch = list[tuple[socket.SocketType, Account]]  # sockets with the accounts that they are charged to
Ancillary = list[tuple[int, int, Any]]
Receive = Callable[[list[bytearray], int, int], tuple[int, Ancillary, int, Any]]


class CarriesDescriptors(Exception):
    """An untrusted client's datagram carries descriptors and is still in the queue; `datagram` is its data."""

    def __init__(self, datagram: bytes) -> None:
        self.datagram = datagram


class Inbox:
    """The buffer for datagrams, with room for one byte more than a datagram may have.

    `close` is called with the descriptors that arrive with datagrams of trusted clients.
    """

    def __init__(self, close: Callable[[list[int]], None]) -> None:
        self._close = close
        self._buffers = [bytearray(MAX_DATAGRAM + 1)]
        self._view = memoryview(self._buffers[0])

    def take(self, receive: Receive) -> bytes | None:
        """Return a datagram; None at the end. Raises CarriesDescriptors, OSError, BlockingIOError if there is none.

        The sender's credentials arrive with each datagram: only they distinguish an empty one, which others
        may follow, from the end.
        """
        size, ancillary, _flags, _address = receive(self._buffers, _ALL, _TAKE)
        if len(ancillary) != 1:
            if not ancillary:
                return None
            self._close(_passed(ancillary))
        return bytes(self._view[:size])

    def drain(self, sock: socket.SocketType, receive: Receive) -> bool:
        """Stop receiving and drain the queue, because the peer would lose its last answers otherwise.

        Return False if a datagram with descriptors is left: closing the socket would close them here.
        """
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
        for _ in range(2):  # the error for an early close of the peer comes first, once
            try:
                while self.take(receive) is not None:
                    pass
            except CarriesDescriptors:
                return False
            except OSError:
                continue
            return True
        return False


def receiver(sock: socket.SocketType, is_trusted: bool) -> Receive:
    """Return a function that receives from a client."""
    return sock.recvmsg_into if is_trusted else partial(_receive_warily, sock)


def _receive_warily(
    sock: socket.SocketType, buffers: list[bytearray], _space: int, flags: int
) -> tuple[int, Ancillary, int, Any]:
    """Receive like `recvmsg_into`, but no descriptors. Raises CarriesDescriptors."""
    # a peek takes its own references to descriptors, so dropping them closes nothing: unix(7), MSG_CTRUNC
    found = sock.recvmsg_into(buffers, _CREDENTIALS, _LOOK)
    if found[2] & _CUT:
        raise CarriesDescriptors(bytes(memoryview(buffers[0])[: found[0]]))
    if found[1]:
        sock.recv(1, flags)
    return found


def _passed(ancillary: Ancillary) -> list[int]:
    return [
        fd
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4])
    ]


class Disposal:
    """Ends connections whose queues hold descriptors. Owns their sockets, charged to their users until the close.

    One child at a time empties up to DISPOSED sockets. The next child starts when it has ended, or when as
    many sockets are waiting again: slow descriptors must not exhaust our own. `drain(sock)` returns whether a
    socket that receives no more is empty and may be closed here.
    """

    def __init__(self, loop: Loop, drain: Callable[[socket.SocketType], bool]) -> None:
        self._loop = loop
        self._drain = drain
        self._waiting: Batch = []
        self._children: dict[int, tuple[int, Batch]] = {}  # pid and sockets by number of the child
        self._looks = False

    def take(self, sock: socket.SocketType, account: Account) -> None:
        """Disconnect the peer now, and close the connection once a child has emptied it."""
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        account.charge("connections")
        self._waiting.append((sock, account))
        if not self._looks or len(self._waiting) >= DISPOSED:
            self._start()

    def finish(self) -> None:
        """Start children for all sockets, so that the exit of this process need not wait for their descriptors."""
        while self._waiting and self._start():
            pass

    def _start(self) -> bool:
        """Start a child for the sockets that have waited longest; return whether it is running."""
        self._look_later()
        number = next((number for number in range(DISPOSALS) if number not in self._children), None)
        if number is None:
            return False
        batch = self._waiting[:DISPOSED]
        try:
            pid = start_disposal(number, [sock.fileno() for sock, _account in batch])
        except OSError as error:
            log.warning("cannot start a process to close descriptors of clients: %s", error.strerror)
            return False
        self._children[number] = pid, batch
        del self._waiting[: len(batch)]
        return True

    def _look_later(self) -> None:
        if not self._looks:
            self._looks = True
            self._loop.call_later(PAUSE, self._look)

    def _look(self) -> None:
        self._looks = False
        for number, (pid, batch) in list(self._children.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._children[number]
                self._close(batch)
        if self._waiting and not self._children:
            self._start()
        elif self._children:
            self._look_later()

    def _close(self, batch: Batch) -> None:
        """Close the sockets that a child has emptied; sockets left by a killed child wait for the next one."""
        for sock, account in batch:
            if self._drain(sock):
                account.charge("connections", -1, -1)
                sock.close()
            else:
                self._waiting.append((sock, account))
