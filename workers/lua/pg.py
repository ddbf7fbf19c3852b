"""`pg`: PostgreSQL for scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from workers.lua.library import Context
from workers.lua.pg_result import Packed
from workers.lua.placeholders import placeholders
from workers.lua.state import Functions, Opaque

if TYPE_CHECKING:
    from workers.lua.pg_connection import PgConnection


class _Handle(Opaque):
    """What a script's object has of its connection, which ends with it unless somebody listens."""

    __slots__ = ("_drop", "connection")

    def __init__(self, connection: PgConnection, drop: Callable[[PgConnection], None]) -> None:
        self.connection = connection
        self._drop = drop

    def __del__(self) -> None:
        self._drop(self.connection)


class Pg:
    """Owns the connections."""

    name = "pg"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._connections: set[PgConnection] = set()
        self.functions: Functions = {"new": self._new, "listen": self._listen}
        self.waiting: Functions = {"execute": self._execute}

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    def _new(self, conninfo: bytes, schema: bytes | None) -> _Handle:
        from workers.lua.pg_connection import PgConnection  # psycopg costs 14 MB, and many scripts need no database

        connection = PgConnection(self._context, conninfo, schema)
        self._connections.add(connection)
        return _Handle(connection, self._drop)

    def _drop(self, connection: PgConnection) -> None:
        """Lua's collector has found that nobody has it any more: nothing is done in the middle of that."""
        if connection in self._connections and not connection.listens:
            self._connections.remove(connection)
            self._context.loop.call_soon(connection.close)

    def _listen(self, handle: _Handle, channel: bytes, callback: int) -> None:
        handle.connection.listen(channel, callback)

    def _execute(self, handle: _Handle, sql: bytes, with_params: bool, *params: bytes | None) -> asyncio.Future[Packed]:
        if not with_params:
            return handle.connection.execute(sql, None)
        missing = max(0, placeholders(sql) - len(params))
        return handle.connection.execute(sql, [*params, *[None] * missing])
