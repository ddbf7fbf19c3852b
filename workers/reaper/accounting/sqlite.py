"""The accounting in SQLite, in a thread of its own, because a commit waits for the disk.

SQLite continues to write to a file that was removed or replaced. Therefore the identities of the file and of
its log are compared before and after each batch; if the file is gone by then, the rows stay in the spool.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from supervisor.linux.libc import check, function
from supervisor.linux.place import Place
from workers.reaper.accounting.database import read_schema
from workers.reaper.accounting.query import Query, Totals, aggregates, names_in, source, to_total
from workers.reaper.accounting.row import COLUMNS, Row, values
from workers.reaper.options import DatabaseError

T = TypeVar("T")
Identity = tuple[int, int] | None  # device and inode; None: there is no such file
VERSION = 1
SUFFIXES = ("", "-wal", "-shm", "-journal")
DAY = 86400.0  # seconds
LONGEST_GAP = 30 * DAY  # seconds between the newest row and the time when the database was opened
BUSY_PATIENCE = 5.0  # seconds to wait for another writing process
_INSERT = (
    f"INSERT INTO accounting ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    " ON CONFLICT DO NOTHING"
)
_FORGET = (
    "DELETE FROM accounting WHERE (host, boot, cgroup, ended) IN"
    " (SELECT host, boot, cgroup, ended FROM accounting WHERE ended < ? LIMIT ?)"
)
# <linux/timex.h>
STA_UNSYNC = 0x0040
_TIMEX = 256  # bytes; struct timex has 208
_STATUS = struct.Struct("@I4li")  # modes, offset, freq, maxerror, esterror, status
_adjtimex = function("adjtimex", ctypes.c_void_p)

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
    """The database. Owns its thread and, in it, the connection to the file at `path`. `make`: create a missing file."""

    def __init__(self, path: str, make: bool, clock: Clock | None = None) -> None:
        self._path = path
        self._make = make
        self._clock = clock or HostClock()
        self._thread = ThreadPoolExecutor(1, "sqlite")
        self._connection: sqlite3.Connection | None = None
        self._database: Identity = None  # of the connected file
        self._log: Identity = None  # of its write-ahead log, after the last batch
        self._clock_check: ClockCheck | None = None  # for that file, since its first connection
        self._has_moved = False  # not yet reported to a batch

    async def insert(self, rows: Sequence[Row]) -> int:
        return await self._in_thread(lambda: self._insert(rows))

    async def totals(self, query: Query) -> Totals:
        return await self._in_thread(lambda: _totals(self._connected(), query))

    async def forget(self, host: str, keep: float, most: int) -> int:
        return await self._in_thread(lambda: self._forget(keep, most))

    async def close(self) -> None:
        """Close the database; a running query is interrupted, because it may take minutes."""
        if (connection := self._connection) is not None:
            connection.interrupt()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    # in the thread

    def _do(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            self._disconnect()
            raise DatabaseError(f"{self._path}: {error}") from error
        except OSError as error:
            raise DatabaseError(f"{error.filename or self._path}: {error.strerror}") from error

    def _insert(self, rows: Sequence[Row]) -> int:
        connection = self._connected()
        self._check_moved()
        _insert(connection, rows)
        self._let_go_of_moved()
        self._check_moved()
        self._log = _identity(f"{self._path}-wal")
        return 0

    def _forget(self, keep: float, most: int) -> int:
        connection = self._connected()
        assert self._clock_check is not None
        if doubt := self._clock_check.doubt():
            raise DatabaseError(doubt)
        return connection.execute(_FORGET, (self._clock.now() - keep, most)).rowcount

    def _connected(self) -> sqlite3.Connection:
        self._let_go_of_moved()
        if self._connection is None:
            self._connection = _connect(self._path, self._make)
            self._database = _identity(self._path)
            self._log = _identity(f"{self._path}-wal")
        if self._clock_check is None:
            newest = self._connection.execute("SELECT max(ended) FROM accounting").fetchone()[0]
            self._clock_check = ClockCheck(self._clock, newest)
        return self._connection

    def _let_go_of_moved(self) -> None:
        """Disconnect from a file that is no longer at the path, or whose log is not.

        The log is written to that file first, because SQLite would otherwise apply it to the new file at the path.
        """
        if self._connection is None:
            return
        moved = _identity(self._path) != self._database
        if not moved and (self._log is None or _identity(f"{self._path}-wal") == self._log):
            return
        is_read = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if is_read:
            raise DatabaseError(f"{self._path} was removed or replaced, and another program still reads the old file")
        self._has_moved = True
        if moved:
            self._clock_check = None
        self._disconnect()

    def _check_moved(self) -> None:
        """Raise DatabaseError once after the file has moved."""
        if self._has_moved:
            self._has_moved = False
            raise DatabaseError(f"{self._path} was removed or replaced: rows go to the file that is there now")

    def _end(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("SELECT 1")  # otherwise the interruption would hit the checkpoint of the close
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _identity(path: str) -> Identity:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _refuse_strangers(path: str) -> None:
    """Raise OSError if another user can have created the database, or SQLite's files beside it, in a shared folder."""
    with suppress(FileNotFoundError), Place(follows_all=True, owners=()) as place:
        place.enter(path)
        for name in (f"{place.name}{suffix}" for suffix in SUFFIXES):
            with suppress(FileNotFoundError):
                place.check_owner(os.stat(name, dir_fd=place.folder, follow_symlinks=False), name)


def _connect(path: str, make: bool) -> sqlite3.Connection:
    """Connect to the database; `make`: create a missing one. Raises sqlite3.Error, DatabaseError."""
    _refuse_strangers(path)
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
    """Create missing tables."""
    connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not block each other
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 0:  # no other process was faster
            for statement in read_schema("sqlite").split(";\n"):
                connection.execute(statement)
        connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(_INSERT, [(*values(row), _to_json(row.xattrs) if row.xattrs else "{}") for row in rows])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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
    """Return the JSON path of a member of an object; it needs no escapes."""
    return f'$."{name}"'


def _path_prefix(path: str, names: int) -> str:
    return "/".join(path.split("/")[: names + 1])


# trust in the clock of the host, by which rows are dropped


class Clock(Protocol):
    """A clock in seconds: `now` since 1970, `elapsed` by a clock that cannot be set."""

    def now(self) -> float: ...

    def elapsed(self) -> float: ...

    def is_synchronised(self) -> bool:
        """Whether the clock follows a source of time. Raises OSError."""


def adjtimex() -> int:
    """Return the status bits of the kernel's clock, STA_…, without a change: adjtimex(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(_TIMEX)  # modes is 0
    check(_adjtimex(ctypes.addressof(buffer)))
    status: int = _STATUS.unpack_from(buffer)[-1]
    return status


class HostClock:
    def now(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def is_synchronised(self) -> bool:
        return not adjtimex() & STA_UNSYNC


class ClockCheck:
    """A check whether the clock can be trusted to find old rows.

    `newest` is the end of the newest row when the database was opened, or None without rows. The clock may be ahead of
    that moment by the time elapsed since then plus a gap, in which the host was off or released no cgroup.
    """

    def __init__(self, clock: Clock, newest: float | None) -> None:
        self._clock = clock
        now = clock.now()
        self._newest = now if newest is None else newest
        self._opened = clock.elapsed()

    def doubt(self) -> str:
        """Return why the clock may be wrong, or '' without a reason."""
        try:
            if not self._clock.is_synchronised():
                return "the clock of this host is not synchronised: see timedatectl"
        except OSError as error:
            return f"cannot tell whether the clock of this host is synchronised: {error.strerror}"
        gap = self._clock.now() - (self._clock.elapsed() - self._opened) - self._newest
        if gap > LONGEST_GAP:
            return f"the clock is {gap / DAY:.0f} days past the newest row: if it is right, restart the reaper"
        return ""
