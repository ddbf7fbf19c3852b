"""The accounting in PostgreSQL, where many hosts may report to one database."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from workers.reaper.accounting.database import read_schema
from workers.reaper.accounting.query import Query, Totals, aggregates, names_in, source, to_total
from workers.reaper.accounting.row import COLUMNS, Row, values
from workers.reaper.options import DatabaseError

logging.getLogger("psycopg").setLevel(logging.CRITICAL + 1)  # psycopg raises what it logs
T = TypeVar("T")
Connection = psycopg.AsyncConnection[dict[str, Any]]
VERSION = 1
CONNECT_PATIENCE = 10  # seconds
PATIENCE = 60.0  # seconds for a batch or an answer, because a disconnected server does not report its end
AT_ONCE = 100  # rows, which block other callbacks for some milliseconds
LOCK = 0x73706163  # an advisory lock: only one host at a time creates tables
_TIMES = ("ended", "btime")
_VALUES = ", ".join("to_timestamp(%s)" if name in _TIMES else "%s" for name in COLUMNS)
_INSERT = f"INSERT INTO accounting ({', '.join(COLUMNS)}) VALUES ({_VALUES}) ON CONFLICT DO NOTHING"  # noqa: S608
_FORGET = (
    "DELETE FROM accounting WHERE (host, boot, cgroup, ended) IN (SELECT host, boot, cgroup, ended FROM accounting"
    " WHERE host = %s AND ended < now() - make_interval(secs => %s) LIMIT %s)"  # by the clock of the server
)
_SECONDS = "extract(epoch FROM r.ended)"
_GROUPS = {
    "path": "array_to_string((string_to_array(r.path, '/'))[1:%(names)s], '/')",
    "scope": "r.scope",
    "host": "r.host",
    "xattr": "r.xattrs ->> %(xattr)s",
}


def open_database(conninfo: str, make: bool = True) -> Postgresql:
    return Postgresql(conninfo, make)


class Postgresql:
    """The database. Owns one connection, which is used for one operation at a time. `make`: create missing tables."""

    def __init__(self, conninfo: str, make: bool) -> None:
        self._conninfo = conninfo
        self._make = make
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._partitions: set[str] = set()

    async def insert(self, rows: Sequence[Row]) -> int:
        async with self._lock:
            return await self._limited(self._insert(rows))

    async def totals(self, query: Query) -> Totals:
        async with self._lock:
            return await self._limited(self._totals(query))

    async def forget(self, host: str, keep: float, most: int) -> int:
        async with self._lock:
            return await self._limited(self._forget(host, keep, most))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()

    async def _limited(self, work: Awaitable[T]) -> T:
        """Work within the time limit; close the connection after a failure. Raises DatabaseError."""
        try:
            return await asyncio.wait_for(work, PATIENCE)
        except TimeoutError as error:
            await self.close()
            raise DatabaseError(f"PostgreSQL did not answer within {PATIENCE:g} s") from error
        except (psycopg.Error, OSError) as error:
            await self.close()
            raise DatabaseError(f"PostgreSQL: {str(error).strip()}") from error
        except BaseException:
            await self.close()
            raise

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._partitions.clear()
            self._connection = await psycopg.AsyncConnection.connect(
                self._conninfo, row_factory=dict_row, connect_timeout=CONNECT_PATIENCE, autocommit=True
            )
            await self._make_schema(self._connection)
        return self._connection

    async def _make_schema(self, connection: Connection) -> None:
        if not await _exists(connection, "accounting_version"):
            if not self._make:
                raise DatabaseError("PostgreSQL: there is no accounting in this database")
            async with _alone(connection):
                if not await _exists(connection, "accounting_version"):  # no other host was faster
                    async with connection.transaction():
                        await connection.execute(_trusted(read_schema("postgresql")))
        found = await (await connection.execute("SELECT version FROM accounting_version")).fetchone()
        version = found["version"] if found else None
        if version != VERSION:
            raise DatabaseError(f"PostgreSQL: the schema of the accounting has version {version}, {VERSION} is wanted")

    # rows

    async def _insert(self, rows: Sequence[Row]) -> int:
        connection = await self._connected()
        for month in sorted({_month(row.ended) for row in rows} - self._partitions):
            await self._make_partition(connection, month)
        try:
            async with connection.transaction(), connection.cursor() as cursor:
                for first in range(0, len(rows), AT_ONCE):
                    await cursor.executemany(_trusted(_INSERT), [_values(row) for row in rows[first : first + AT_ONCE]])
        except psycopg.DataError:
            return await self._insert_singly(connection, rows)
        return 0

    async def _insert_singly(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Insert rows one by one, because a row that cannot be kept must not prevent the others."""
        refused = 0
        async with connection.transaction():
            for row in rows:
                try:
                    async with connection.transaction():
                        await connection.execute(_trusted(_INSERT), _values(row))
                except psycopg.DataError:
                    refused += 1
        return refused

    async def _make_partition(self, connection: Connection, month: str) -> None:
        name = f"accounting_{month}"
        if not await _exists(connection, name):
            first, end = _bounds(month)
            async with _alone(connection):
                await connection.execute(
                    _trusted(
                        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF accounting"
                        f" FOR VALUES FROM ('{first}') TO ('{end}')"
                    )
                )
        self._partitions.add(month)

    async def _forget(self, host: str, keep: float, most: int) -> int:
        connection = await self._connected()
        return (await connection.execute(_FORGET, (host, keep, most))).rowcount

    # totals

    async def _totals(self, query: Query) -> Totals:
        connection = await self._connected()
        parameters: dict[str, object] = {
            "names": names_in(query.path) + query.depth + 1,
            "xattr": query.xattr,
            "path": query.path,
            "below": f"{query.path}/",
            "since": query.since,
            "until": query.until,
            "top": query.top,
            "where": Jsonb(query.where),
        }
        conditions = ["(r.path = %(path)s OR starts_with(r.path, %(below)s))"] if query.path else []
        conditions += ["r.ended >= to_timestamp(%(since)s)"] if query.since is not None else []
        conditions += ["r.ended < to_timestamp(%(until)s)"] if query.until is not None else []
        conditions += ["r.xattrs @> %(where)s"] if query.where else []
        what = f"{aggregates(_SECONDS)} FROM {source('accounting')} WHERE {' AND '.join(conditions) or 'TRUE'}"
        order = f"GROUP BY 1 ORDER BY {query.sort} DESC NULLS LAST, 1 LIMIT %(top)s"
        grouped = await connection.execute(
            _trusted(f"SELECT {_GROUPS[query.by]} AS name, {what} {order}"),
            parameters,
        )
        groups = tuple(to_total(row) for row in await grouped.fetchall())
        whole = await (await connection.execute(_trusted(f"SELECT {what}"), parameters)).fetchone()
        assert whole is not None
        return Totals(groups, to_total(whole))


@asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[None]:
    """Hold the lock under which only one host creates tables.

    Do not call it in a transaction, which would not see tables created after its beginning.
    """
    await connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


async def _exists(connection: Connection, table: str) -> bool:
    found = await (await connection.execute("SELECT to_regclass(%s) IS NOT NULL AS there", [table])).fetchone()
    return bool(found and found["there"])


def _values(row: Row) -> tuple[object, ...]:
    return (*values(row), Jsonb(row.xattrs))


def _month(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y_%m")


def _bounds(month: str) -> tuple[str, str]:
    """Return the start of a month and of the next one, in PostgreSQL's format."""
    year, number = map(int, month.split("_"))
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return f"{year:04}-{number:02}-01 00:00+00", f"{following[0]:04}-{following[1]:02}-01 00:00+00"


def _trusted(statement: str) -> LiteralString:
    """Mark a statement as safe: it contains no external input."""
    return statement
