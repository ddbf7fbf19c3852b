"""A connected socket on asyncio: nothing that is done with it blocks the loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from errno import EAGAIN, EINPROGRESS, ETIMEDOUT

from workers.lua.address import Address
from workers.lua.errors import Failure
from workers.lua.state import Opaque

_LOOK_AGAIN = 0.01  # seconds; the kernel does not tell when a backlog has room for a Unix socket again
PATIENCE = 30.0  # seconds for a peer that takes nothing: handlers that wait for it keep others from beginning
_CLOSED = "the socket is closed"
_TAKES_NOTHING = f"the peer has taken nothing for {PATIENCE:g} s"


class Connection(Opaque):
    """Owns the socket.  A script that loses all of its references loses the socket as well."""

    __slots__ = ("_address", "_given_up", "_loop", "_senders", "_sending", "_socket", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, kind: int) -> None:
        """Raises OSError."""
        self._loop = loop
        self._address = address
        self._sending = asyncio.Lock()
        self._senders = 0
        self._given_up = 0  # times that the peer has taken nothing for too long
        self._waiter: asyncio.Future[None] | None = None
        self._socket = socket.socket(address.family, kind | socket.SOCK_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    async def connect(self) -> None:
        """Raises OSError, Failure where it is closed meanwhile."""
        end = self._loop.time() + PATIENCE
        number = self._socket.connect_ex(self._address.sockaddr)
        while number == EAGAIN and self._loop.time() < end:
            await asyncio.sleep(_LOOK_AGAIN)
            number = self._socket.connect_ex(self._address.sockaddr)
        if number == EINPROGRESS:
            try:
                await self._wait_writable()
            except _Stuck:
                raise OSError(ETIMEDOUT, os.strerror(ETIMEDOUT)) from None
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))

    def connect_nowait(self) -> None:
        """Connect again, for a datagram socket, which never waits.  Raises OSError."""
        self._socket.connect(self._address.sockaddr)

    def send_nowait(self, data: bytes) -> int:
        """Send what there is room for, nothing while others send; how much that was.  Raises OSError, Failure."""
        if self._socket.fileno() < 0:
            raise Failure(_CLOSED)
        if self._senders:
            return 0
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def send(self, data: bytes, sent: int = 0) -> Coroutine[None, None, int]:
        """Send all of it but what is sent already, after what others send; its size.  Raises OSError, Failure."""
        self._senders += 1  # at once: nobody gets in between what is sent and the rest
        return self._send(memoryview(data)[sent:], len(data))

    async def _send(self, rest: memoryview, size: int) -> int:
        given_up = self._given_up
        try:
            async with self._sending:
                if self._given_up != given_up:  # who was before us has waited long enough for both
                    raise Failure(_TAKES_NOTHING)
                while rest:
                    await self._wait_writable()
                    with suppress(BlockingIOError):
                        rest = rest[self._socket.send(rest, socket.MSG_NOSIGNAL) :]
        except _Stuck:
            self._given_up += 1
            if len(rest) < size:  # a stream: what comes next would be taken for the rest of this
                self.close()
            raise Failure(_TAKES_NOTHING) from None
        finally:
            self._senders -= 1
        return size

    def close(self) -> None:
        """May be called again; what waits for the socket fails."""
        if self._waiter is not None:
            self._loop.remove_writer(self._socket.fileno())
            _fail(self._waiter, Failure(_CLOSED))
            self._waiter = None
        self._socket.close()

    async def _wait_writable(self) -> None:
        """Raises Failure where it is closed meanwhile, _Stuck where it does not become writable."""
        if self._socket.fileno() < 0:
            raise Failure(_CLOSED)
        waiter = self._waiter = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, _ring, waiter)
        patience = self._loop.call_later(PATIENCE, _fail, waiter, _Stuck())
        try:
            await waiter
        finally:
            patience.cancel()
            if self._waiter is waiter:
                self._waiter = None
                self._loop.remove_writer(fd)
        if self._socket.fileno() < 0:  # between its becoming writable and our turn
            raise Failure(_CLOSED)


class _Stuck(Exception):
    """The peer has taken nothing for `PATIENCE`."""


def _ring(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(waiter: asyncio.Future[None], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
