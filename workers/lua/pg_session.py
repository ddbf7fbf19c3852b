"""An open connection to the PostgreSQL server: queries out, results and notifications in.

Queries are pipelined: each is sent before the results of earlier ones have arrived, because round trips to a
distant server would allow only a few queries per second. A query without parameters may contain several
statements, for which the protocol has no pipeline: it is alone on the connection.

A commit waits for the server's disk, some hundred times a second. INSERTs that wait at the same time
therefore share a commit, and each still has its own result. If one of them or the commit fails, the server
has undone them all, and each is sent again alone.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult

from workers.lua.state import Failure

NULL = 0xFFFFFFFF  # in place of a length
Packed = tuple[int, int, bytes, bytes]  # columns, rows, the length of each string as little-endian u32, the strings
_MOST = 256  # queries in a group, in which the first one waits for the last
_UNDER_WAY = 256  # groups that the server has not answered; more would only wait there
_SHARED_UNDER_WAY = 2  # of those that can grow: the present one and the next; others are collected meanwhile
_IN_TURN = 64  # results that are handled before other events of the loop
_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_INSERT = re.compile(rb"\s*INSERT\b", re.IGNORECASE)
_FINE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)


@dataclass(slots=True, eq=False)
class Query:
    """One query of a script, from `db:execute` to its result.

    `params` None: a text without parameters, which may have several statements; the result of the last one counts.
    """

    sql: bytes
    params: list[bytes | None] | None
    deadline: float  # on the loop's clock; until then it waits for a connection
    answer: asyncio.Future[Packed]
    result: PGresult | None = None
    by_itself: bool = False  # its shared transaction has failed

    @property
    def shares(self) -> bool:
        """Whether it may share a transaction with others: INSERTs do not depend on each other's rows."""
        return self.params is not None and not self.by_itself and _INSERT.match(self.sql) is not None

    @property
    def is_fine(self) -> bool:
        return self.result is not None and self.result.status in _FINE

    def finish(self) -> None:
        """Answer the query, whose results are complete and committed."""
        if self.answer.done():
            return
        if self.result is None:
            self.fail("the server sent no result")
        elif self.is_fine:
            self.answer.set_result(pack(self.result))
        else:
            self.fail(self.result.error_message.decode(errors="surrogateescape").rstrip("\n"))

    def fail(self, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(Failure(message))


@dataclass(slots=True, eq=False)
class Group:
    """The queries between two synchronizations with the server: one, or INSERTs that share a transaction.

    `alone`: nothing else is in progress, and its end has no mark of its own.
    """

    queries: list[Query]
    answered: int = 0

    @property
    def alone(self) -> bool:
        return self.queries[0].params is None

    @property
    def shares(self) -> bool:
        return self.queries[0].shares

    def take(self, result: PGresult | None) -> bool:
        """Take the next result, or None at the end of a query's results; return whether the group ends with it."""
        if result is None:
            self.answered += 1
            return self.alone
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        # after the last query, it is that of the commit
        self.queries[min(self.answered, len(self.queries) - 1)].result = result
        return False

    def finish(self) -> list[Query]:
        """Deliver the results of all queries; return the queries that have to be sent again, each alone."""
        if len(self.queries) > 1 and not all(query.is_fine for query in self.queries):
            for query in self.queries:
                query.result = None
                query.by_itself = True
            return self.queries
        for query in self.queries:
            query.finish()
        return []


def next_group(queue: deque[Query]) -> Group:
    """Take the first query from the queue, and following ones that may share its transaction."""
    queries = [queue.popleft()]
    if queries[0].shares:
        while queue and queue[0].shares and len(queries) < _MOST:
            queries.append(queue.popleft())
    return Group(queries)


@dataclass(frozen=True, slots=True)
class Listener:
    """The callbacks: `notified` gets the channel of a notification, `lost` the reason of the end, once."""

    notified: Callable[[bytes], None]
    lost: Callable[[str], None]


class Session:
    """Owns the connection. Takes queries from `queue`, which the caller still owns, as it can send them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: psycopg.AsyncConnection[object],
        queue: deque[Query],
        listener: Listener,
    ) -> None:
        self._loop = loop
        self._connection = connection  # keeps the owner of `_pg` alive
        self._pg: PGconn = connection.pgconn
        self._queue = queue
        self._listener = listener
        self._first: deque[Query] = deque()
        self._sent: deque[Group] = deque()
        self._shared = 0  # the number of shared ones among them
        self.is_open = True
        self._writing = False
        self._fd = self._pg.socket
        self._pg.nonblocking = 1
        loop.add_reader(self._fd, self._readable)
        # data that came with the last answer is in libpq's buffer, and the kernel reports nothing
        loop.call_soon(self._readable)

    def begin(self, queries: list[Query]) -> None:
        """Send these before all others; they belong to this connection and end with it."""
        self._first += queries
        self.send()

    def send(self) -> None:
        """Send the queries that can be sent now."""
        if not self.is_open:
            return
        try:
            while (queue := self._first or self._queue) and self._may_send(queue[0]):
                group = next_group(queue)
                self._sent.append(group)
                self._shared += group.shares
                self._send(group)
            self._flush()
        except psycopg.Error as error:
            self._lose(str(error))

    def close(self, reason: str) -> None:
        """End the connection; queries in progress fail."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._pg.finish()
        lost = [*(query for group in self._sent for query in group.queries), *self._first]
        self._sent.clear()
        for query in lost:
            query.fail(f"the connection to the database is lost, and with it the result: {reason}")

    def _lose(self, reason: str) -> None:
        if self.is_open:
            reason = " ".join(reason.split())  # the text of libpq has several lines
            self.close(reason)
            self._listener.lost(reason)

    def _may_send(self, query: Query) -> bool:
        if not self._sent:
            return True
        if query.params is None or self._sent[-1].alone or len(self._sent) >= _UNDER_WAY:
            return False
        return not query.shares or self._shared < _SHARED_UNDER_WAY

    def _send(self, group: Group) -> None:
        pipeline = self._pg.pipeline_status != PipelineStatus.OFF
        if group.alone:
            if pipeline:
                self._pg.exit_pipeline_mode()
            self._pg.send_query(group.queries[0].sql)
            return
        if not pipeline:
            self._pg.enter_pipeline_mode()
        for query in group.queries:
            self._pg.send_query_params(query.sql, query.params)
        self._pg.pipeline_sync()

    def _flush(self) -> None:
        """Pass data to the kernel; the rest follows when there is room."""
        writing = self._pg.flush() == 1
        if writing != self._writing:
            self._writing = writing
            if writing:
                self._loop.add_writer(self._fd, self.send)
            else:
                self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        if not self.is_open:
            return
        try:
            self._pg.consume_input()
            self._take()
        except psycopg.Error as error:
            self._lose(str(error))

    def _take(self) -> None:
        """Handle some of the results that have arrived."""
        taken = 0
        while self._sent and taken < _IN_TURN and not self._pg.is_busy():
            self._handle(self._pg.get_result())
            taken += 1
        while (notification := self._pg.notifies()) is not None:
            self._listener.notified(notification.relname)
        if self._pg.status == ConnStatus.BAD:
            self._lose(self._pg.get_error_message())
            return
        if taken == _IN_TURN:
            self._loop.call_soon(self._readable)
        self.send()

    def _handle(self, result: PGresult | None) -> None:
        if result is not None and result.status in _COPY:
            raise psycopg.NotSupportedError("COPY would need a program that feeds or reads it")
        group = self._sent[0]
        if group.take(result):
            self._sent.popleft()
            self._shared -= group.shares
            self._queue.extendleft(reversed(group.finish()))


def pack(result: PGresult) -> Packed:
    """Return a result in the format for Lua.

    A script may keep a result for any time, and may read only a part of it. So the result becomes two Lua
    strings, whose sizes Lua's collector knows, and the Lua part takes them apart row by row: the names of the
    columns first, then all values.
    """
    columns, rows = result.nfields, result.ntuples
    cells: list[bytes | None] = [result.fname(column) or b"" for column in range(columns)]
    value = result.get_value
    cells += [value(row, column) for row in range(rows) for column in range(columns)]
    lengths = struct.pack(f"<{len(cells)}I", *(NULL if cell is None else len(cell) for cell in cells))
    return columns, rows, lengths, b"".join(cell for cell in cells if cell is not None)
