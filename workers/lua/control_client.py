"""`control_client`: datagrams of beng-proxy's control protocol.

The datagram is made in the Lua part.  A client outlives its peer: who was started again at the
same address gets the next datagram, which a connected socket would refuse for ever.
"""

from __future__ import annotations

import socket
from errno import ECONNREFUSED, ECONNRESET, ENOTCONN

from workers.lua.address import CONTROL_PORT, Address
from workers.lua.connection import Connection
from workers.lua.errors import Failure
from workers.lua.library import Context
from workers.lua.resolver import Resolver
from workers.lua.state import Functions

# the peer has gone, or was not there when the datagram before was sent; this one has not left
_GONE = (ECONNREFUSED, ECONNRESET, ENOTCONN)


class ControlClients:
    """The connections are owned by the script's objects."""

    name = "control_client"

    def __init__(self, context: Context, resolver: Resolver) -> None:
        self._loop = context.loop
        self._resolver = resolver
        self.functions: Functions = {"send_nowait": self._send_nowait}
        self.waiting: Functions = {"connect": self._connect, "send": self._send}

    def close(self) -> None:
        """What is open is closed with the script's objects."""

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
        """False: there is no room for it now."""
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
