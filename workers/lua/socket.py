"""`socket`, `control_client` and `control_resolve`: connected sockets for sending, and address objects.

No operation on a socket blocks the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from errno import EAGAIN, ECONNREFUSED, ECONNRESET, EINPROGRESS, ENOTCONN, ETIMEDOUT

from workers.lua.address import CONTROL_PORT, Address
from workers.lua.libraries import Context
from workers.lua.state import Failure, Fault, Functions, Opaque

_LOOK_AGAIN = 0.01  # seconds; the kernel does not report room in the backlog of a Unix socket
PATIENCE = 30.0  # seconds for a peer that reads nothing: waiting handlers keep others from starting
_CLOSED = "the socket is closed"
_TAKES_NOTHING = f"the peer has taken nothing for {PATIENCE:g} s"
# the peer has gone, or was not there for the previous datagram; this one was not sent
_GONE = (ECONNREFUSED, ECONNRESET, ENOTCONN)
_KINDS = {b"stream": socket.SOCK_STREAM, b"dgram": socket.SOCK_DGRAM, b"seqpacket": socket.SOCK_SEQPACKET}


class Connection(Opaque):
    """Owner of a connected socket. When a script loses all references to it, the socket is closed."""

    __slots__ = ("_address", "_given_up", "_loop", "_senders", "_sending", "_socket", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, kind: int) -> None:
        """Make the socket. Raises OSError."""
        self._loop = loop
        self._address = address
        self._sending = asyncio.Lock()
        self._senders = 0
        self._given_up = 0  # how often the peer has read nothing for too long
        self._waiter: asyncio.Future[None] | None = None
        self._socket = socket.socket(address.family, kind | socket.SOCK_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    async def connect(self) -> None:
        """Connect. Raises OSError, or Failure if the socket is closed meanwhile."""
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
        """Connect a datagram socket again, which never waits. Raises OSError."""
        self._socket.connect(self._address.sockaddr)

    def send_nowait(self, data: bytes) -> int:
        """Send as much as fits, nothing while others send; return the number of bytes. Raises OSError, Failure."""
        if self._socket.fileno() < 0:
            raise Failure(_CLOSED)
        if self._senders:
            return 0
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def send(self, data: bytes, sent: int = 0) -> Coroutine[None, None, int]:
        """Send all but the `sent` bytes, after other senders; return the size of `data`. Raises OSError, Failure."""
        self._senders += 1  # at once, so that no other data gets between the sent part and the rest
        return self._send(memoryview(data)[sent:], len(data))

    async def _send(self, rest: memoryview, size: int) -> int:
        given_up = self._given_up
        try:
            async with self._sending:
                if self._given_up != given_up:  # the sender before this one has waited long enough for both
                    raise Failure(_TAKES_NOTHING)
                while rest:
                    await self._wait_writable()
                    with suppress(BlockingIOError):
                        rest = rest[self._socket.send(rest, socket.MSG_NOSIGNAL) :]
        except _Stuck:
            self._given_up += 1
            if len(rest) < size:  # on a stream, later data would be taken for the rest of this
                self.close()
            raise Failure(_TAKES_NOTHING) from None
        finally:
            self._senders -= 1
        return size

    def close(self) -> None:
        """Close the socket; operations that wait for it fail. Idempotent."""
        if self._waiter is not None:
            self._loop.remove_writer(self._socket.fileno())
            _fail(self._waiter, Failure(_CLOSED))
            self._waiter = None
        self._socket.close()

    async def _wait_writable(self) -> None:
        """Wait until the socket is writable.

        Raises Failure if it is closed meanwhile, _Stuck if that takes too long.
        """
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
        if self._socket.fileno() < 0:  # between becoming writable and this turn
            raise Failure(_CLOSED)


class _Stuck(Exception):
    """The peer has read nothing for `PATIENCE`."""


def _ring(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(waiter: asyncio.Future[None], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)


class Sockets:
    """The library `socket`; the script's objects own the connections."""

    name = "socket"

    def __init__(self, context: Context) -> None:
        self._loop = context.loop
        self._resolver = context.resolver
        self.functions: Functions = {
            "send_nowait": Connection.send_nowait,
            "close": Connection.close,
        }
        self.waiting: Functions = {"connect": self._connect, "send": Connection.send}

    def close(self) -> None:
        """Do nothing: connections are closed with the script's objects."""

    async def _connect(self, address: bytes | Address, kind: bytes) -> Connection:
        """Connect to the first address of a host that accepts."""
        wanted = _KINDS[kind]
        addresses = [address] if isinstance(address, Address) else await self._resolver.addresses(address, wanted)
        problem: str | None = "no address"
        for each in addresses:
            try:
                connection = Connection(self._loop, each, wanted)
                await connection.connect()
            except OSError as error:
                problem = error.strerror  # not the error itself, which would refer to this frame and the connection
            else:
                return connection
        raise Failure(f"cannot connect to {each}: {problem}")


class ControlClients:
    """Datagrams of beng-proxy's control protocol, which the Lua part makes.

    The script's objects own the connections. A client outlives its peer: a peer that was restarted at the
    same address gets the next datagram, which a connected socket would refuse for ever.
    """

    name = "control_client"

    def __init__(self, context: Context) -> None:
        self._loop = context.loop
        self._resolver = context.resolver
        self.functions: Functions = {"send_nowait": self._send_nowait}
        self.waiting: Functions = {"connect": self._connect, "send": self._send}

    def close(self) -> None:
        """Do nothing: connections are closed with the script's objects."""

    async def _connect(self, address: bytes | Address) -> Connection:
        if not isinstance(address, Address):
            address = (await self._resolver.addresses(address, socket.SOCK_DGRAM, CONTROL_PORT))[0]
        try:
            connection = Connection(self._loop, address, socket.SOCK_DGRAM)
            connection.connect_nowait()
        except OSError as error:
            raise Failure(f"cannot connect to {address}: {error.strerror}") from error
        return connection

    def _send_nowait(self, connection: Connection, datagram: bytes) -> bool:
        """Send a datagram; return False if there is no room for it now."""
        try:
            return connection.send_nowait(datagram) > 0
        except OSError as error:
            if error.errno not in _GONE:
                raise
            connection.connect_nowait()
            return connection.send_nowait(datagram) > 0

    async def _send(self, connection: Connection, datagram: bytes) -> bool:
        await connection.send(datagram)
        return True


class ControlResolve:
    """Address objects, which scripts make once and use often."""

    name = "control_resolve"

    def __init__(self, context: Context) -> None:
        self._resolver = context.resolver
        self.functions: Functions = {"show": self._show}
        self.waiting: Functions = {"resolve": self._resolve}

    def close(self) -> None:
        """Do nothing: there is no state."""

    async def _resolve(self, text: bytes) -> Address:
        try:
            return (await self._resolver.addresses(text, socket.SOCK_DGRAM, CONTROL_PORT))[0]
        except Failure as failure:
            raise Fault(str(failure)) from failure

    def _show(self, address: Address) -> str:
        return str(address)
