"""`socket`: connected sockets that scripts send on."""

from __future__ import annotations

import socket

from workers.lua.address import Address
from workers.lua.connection import Connection
from workers.lua.errors import Failure
from workers.lua.library import Context
from workers.lua.resolver import Resolver
from workers.lua.state import Functions

_KINDS = {b"stream": socket.SOCK_STREAM, b"dgram": socket.SOCK_DGRAM, b"seqpacket": socket.SOCK_SEQPACKET}


class Sockets:
    """The connections are owned by the script's objects."""

    name = "socket"

    def __init__(self, context: Context, resolver: Resolver) -> None:
        self._loop = context.loop
        self._resolver = resolver
        self.functions: Functions = {
            "send_nowait": Connection.send_nowait,
            "close": Connection.close,
        }
        self.waiting: Functions = {"connect": self._connect, "send": Connection.send}

    def close(self) -> None:
        """What is open is closed with the script's objects."""

    async def _connect(self, address: bytes | Address, kind: bytes) -> Connection:
        """To the first address of a host that answers."""
        wanted = _KINDS[kind]
        addresses = [address] if isinstance(address, Address) else await self._resolver.addresses(address, wanted)
        problem: str | None = "no address"
        for each in addresses:
            try:
                connection = Connection(self._loop, each, wanted)
                await connection.connect()
            except OSError as error:
                problem = error.strerror  # not the error itself, which would hold this frame and the connection
            else:
                return connection
        raise Failure(f"cannot connect to {each}: {problem}")
