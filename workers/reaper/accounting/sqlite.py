"""The accounting in SQLite, in a thread of its own: a commit waits for the disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from workers.reaper.accounting.database import read_schema
from workers.reaper.accounting.query import Query, Totals, aggregates, names_in, source, to_total
from workers.reaper.accounting.row import COLUMNS, Row
from workers.reaper.errors import DatabaseError

T = TypeVar("T")
VERSION = 1
BUSY_PATIENCE = 5.0  # seconds for another process that writes
_INSERT = (
    f"INSERT INTO accounting ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    " ON CONFLICT DO NOTHING"
)
_FORGET = (
    "DELETE FROM accounting WHERE (host, boot, cgroup, ended) IN"
    " (SELECT host, boot, cgroup, ended FROM accounting WHERE ended < ? LIMIT ?)"
)
_to_json = json.JSONEncoder(ensure_ascii=False).encode
_GROUPS = {
    "path": "path_prefix(r.path, :names)",
    "scope": "r.scope",
    "host": "r.host",
    "xattr": "json_extract(r.xattrs, :xattr)",
}


def open_database(path: str, make: bool = True) -> Sqlite:
    return Sqlite(path, make)


class Sqlite:
    """Owns its thread and, in it, the connection to the file at `path`; `make`: where there is none."""

    def __init__(self, path: str, make: bool) -> None:
        self._path = path
        self._make = make
        self._thread = ThreadPoolExecutor(1, "sqlite")
        self._connection: sqlite3.Connection | None = None

    async def insert(self, rows: Sequence[Row]) -> int:
        return await self._run(lambda connection: _insert(connection, rows))

    async def totals(self, query: Query) -> Totals:
        return await self._run(lambda connection: _totals(connection, query))

    async def forget(self, host: str, before: float, most: int) -> int:
        return await self._run(lambda connection: connection.execute(_FORGET, (before, most)).rowcount)

    async def close(self) -> None:
        """A question that is being answered is given up, as its answer may take minutes."""
        if (connection := self._connection) is not None:
            connection.interrupt()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._with_connection, work)

    # in the thread

    def _with_connection(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = _connect(self._path, self._make)
            return work(self._connection)
        except sqlite3.Error as error:
            self._disconnect()
            raise DatabaseError(f"{self._path}: {error}") from error

    def _end(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("SELECT 1")  # else the interruption is of the checkpoint when it is closed
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(path: str, make: bool) -> sqlite3.Connection:
    """The database; with `make` it is made where there is none.  Raises sqlite3.Error, DatabaseError."""
    address = f"{Path(path).as_uri()}?mode={'rwc' if make else 'rw'}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_PATIENCE, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.create_function("path_prefix", 2, _path_prefix, deterministic=True)
        if make:
            _make_schema(connection)
        version = _version(connection)
        if version == 0:
            raise DatabaseError(f"{path}: there is no accounting in it")
        if version != VERSION:
            raise DatabaseError(f"{path}: its schema has version {version}, {VERSION} is wanted")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_schema(connection: sqlite3.Connection) -> None:
    """Where there is none."""
    connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 0:  # nobody else was faster
            for statement in read_schema("sqlite").split(";\n"):
                connection.execute(statement)
        connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(
            _INSERT, [(*row[:-1], _to_json(row.xattrs) if row.xattrs else "{}") for row in rows]
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return 0


def _totals(connection: sqlite3.Connection, query: Query) -> Totals:
    parameters: dict[str, object] = {
        "names": names_in(query.path) + query.depth,
        "xattr": _member(query.xattr),
        "path": query.path,
        "below": f"{query.path}/",
        "since": query.since,
        "until": query.until,
        "top": query.top,
    }
    conditions = ["(r.path = :path OR substr(r.path, 1, length(:below)) = :below)"] if query.path else []
    conditions += ["r.ended >= :since"] if query.since is not None else []
    conditions += ["r.ended < :until"] if query.until is not None else []
    for number, (name, value) in enumerate(query.where.items()):
        conditions.append(f"json_extract(r.xattrs, :name{number}) = :value{number}")
        parameters |= {f"name{number}": _member(name), f"value{number}": value}
    what = f"{aggregates('r.ended')} FROM {source('accounting')} WHERE {' AND '.join(conditions) or 'TRUE'}"
    order = f"GROUP BY 1 ORDER BY {query.sort} DESC NULLS LAST, 1 LIMIT :top"
    grouped = connection.execute(f"SELECT {_GROUPS[query.by]} AS name, {what} {order}", parameters)
    groups = tuple(to_total(dict(row)) for row in grouped)
    return Totals(groups, to_total(dict(connection.execute(f"SELECT {what}", parameters).fetchone())))


def _member(name: str) -> str:
    """The path of a member of a JSON object, which is written without escapes for that."""
    return f'$."{name}"'


def _path_prefix(path: str, names: int) -> str:
    return "/".join(path.split("/")[: names + 1])
