"""`control_resolve`: address objects, which scripts make once and use often."""

from __future__ import annotations

import socket

from workers.lua.address import CONTROL_PORT, Address
from workers.lua.errors import Failure, Fault
from workers.lua.library import Context
from workers.lua.resolver import Resolver
from workers.lua.state import Functions


class ControlResolve:
    name = "control_resolve"

    def __init__(self, _context: Context, resolver: Resolver) -> None:
        self._resolver = resolver
        self.functions: Functions = {"show": self._show}
        self.waiting: Functions = {"resolve": self._resolve}

    def close(self) -> None:
        self._resolver.close()

    async def _resolve(self, text: bytes) -> Address:
        try:
            return (await self._resolver.addresses(text, socket.SOCK_DGRAM, CONTROL_PORT))[0]
        except Failure as failure:
            raise Fault(str(failure)) from failure

    def _show(self, address: Address) -> str:
        return str(address)
