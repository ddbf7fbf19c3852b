"""`pg`: PostgreSQL for scripts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from workers.lua.libraries import Context
from workers.lua.state import Functions, Opaque

if TYPE_CHECKING:
    from workers.lua.pg_connection import PgConnection
    from workers.lua.pg_session import Packed

_TOKEN = re.compile(
    rb"""
      \$(?P<number>[0-9]+)
    | (?P<tag>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$) .*? (?: (?P=tag) | \Z )  # a string between tags
    | (?<![A-Za-z0-9_$\x80-\xff])[eE] ' (?: [^'\\] | \\. | '' )* '?  # a string with backslashes
    | [A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*                     # a name, with $ in it
    | ' (?: [^'] | '' )* '?
    | " [^"]* "?
    | -- [^\n]*
    | (?P<comment>/\*)
    """,
    re.VERBOSE | re.DOTALL,
)
MOST_PARAMETERS = 65535  # in the protocol; the server refuses more
_COMMENT = re.compile(rb"/\*|\*/")


class _Handle(Opaque):
    """A script's reference to its connection, which ends with it unless it has listeners."""

    __slots__ = ("_drop", "connection")

    def __init__(self, connection: PgConnection, drop: Callable[[PgConnection], None]) -> None:
        self.connection = connection
        self._drop = drop

    def __del__(self) -> None:
        self._drop(self.connection)


class PgArray:
    """The library `pg_array`, which is pure Lua."""

    name = "pg_array"
    functions: Functions = {}
    waiting: Functions = {}

    def __init__(self, _context: Context) -> None:
        """Do nothing: there is no state."""

    def close(self) -> None:
        """Do nothing: there is no state."""


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
        from workers.lua.pg_connection import PgConnection  # psycopg takes 14 MB, and many scripts need no database

        connection = PgConnection(self._context, conninfo, schema)
        self._connections.add(connection)
        return _Handle(connection, self._drop)

    def _drop(self, connection: PgConnection) -> None:
        """Close a connection without a reference in the script, once Lua's collector has finished its run."""
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


@lru_cache(maxsize=1024)
def placeholders(sql: bytes) -> int:
    """Return how many parameters an SQL text needs: the highest of `$1`, `$2`, …

    A script's array does not tell its length if the last values are nil, and the server wants all of them.
    Placeholders count outside of strings, quoted names and comments, as PostgreSQL reads them (Lexical
    Structure, in its manual).
    """
    highest = at = 0
    while (token := _TOKEN.search(sql, at)) is not None:
        at = token.end()
        if token["number"]:
            highest = max(highest, min(int(token["number"]), MOST_PARAMETERS))
        elif token["comment"]:
            at = _end_of_comment(sql, at)
    return highest


def _end_of_comment(sql: bytes, at: int) -> int:
    """Return the end of a comment, which may contain other comments."""
    depth = 1
    while depth and (mark := _COMMENT.search(sql, at)) is not None:
        depth += 1 if mark[0] == b"/*" else -1
        at = mark.end()
    return len(sql) if depth else at
