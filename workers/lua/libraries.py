"""The libraries that a reaper's script sees, besides Lua's own and the cgroup that it is given."""

from __future__ import annotations

from workers.lua.control_client import ControlClients
from workers.lua.control_resolve import ControlResolve
from workers.lua.library import Context, Library
from workers.lua.pg import Pg
from workers.lua.resolver import Resolver
from workers.lua.socket import Sockets
from workers.lua.sodium import Sodium
from workers.lua.state import Functions


class LuaLibrary:
    """One that is all Lua."""

    functions: Functions = {}
    waiting: Functions = {}

    def __init__(self, name: str) -> None:
        self.name = name

    def close(self) -> None:
        """It holds nothing."""


def libraries(context: Context) -> list[Library]:
    """One of each; a library may use what one before it has added to the kernel."""
    resolver = Resolver(context.loop)
    return [
        ControlResolve(context, resolver),
        Sockets(context, resolver),
        ControlClients(context, resolver),
        Sodium(),
        LuaLibrary("pg_array"),
        Pg(context),
    ]
