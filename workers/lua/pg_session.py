"""A connection to the server that is up: queries out, results and notifications in.

Queries are pipelined: each is sent before the results of those before it are there, so that a
server at the other end of a country does not make a few of them a second.  A query without
parameters may hold several statements, which the protocol has no pipeline for: it is alone on the
connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult

from workers.lua.pg_group import Group, next_group
from workers.lua.pg_query import Query

_UNDER_WAY = 256  # groups that the server has not answered; more would only wait there
_SHARED_UNDER_WAY = 2  # of those that can grow: one that the server is at and the next; meanwhile others come together
_IN_TURN = 64  # results that are handled before everything else on the loop has its turn
_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told: `notified` of a notification's channel, `lost` of the end, once, with the reason."""

    notified: Callable[[bytes], None]
    lost: Callable[[str], None]


class Session:
    """Owns the connection.  Takes queries from `queue`, which stays its maker's, as it can send them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: psycopg.AsyncConnection[object],
        queue: deque[Query],
        listener: Listener,
    ) -> None:
        self._loop = loop
        self._connection = connection  # keeps what `_pg` belongs to
        self._pg: PGconn = connection.pgconn
        self._queue = queue
        self._listener = listener
        self._first: deque[Query] = deque()
        self._sent: deque[Group] = deque()
        self._shared = 0  # of those
        self.is_open = True
        self._writing = False
        self._fd = self._pg.socket
        self._pg.nonblocking = 1
        loop.add_reader(self._fd, self._readable)
        # what came with the last answer before this is in libpq's buffer, and the kernel has nothing to tell of
        loop.call_soon(self._readable)

    def begin(self, queries: list[Query]) -> None:
        """Send these before all others; they belong to this connection and end with it."""
        self._first += queries
        self.send()

    def send(self) -> None:
        """Send what is in the queue and can be sent now."""
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
        """End the connection; what is under way fails."""
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
            reason = " ".join(reason.split())  # libpq's has lines
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
        """Have the kernel take what is to be sent; what it has no room for it gets when it has."""
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
        """Take a part of what has come."""
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
            raise psycopg.NotSupportedError("COPY would need somebody who feeds or reads it")
        group = self._sent[0]
        if group.take(result):
            self._sent.popleft()
            self._shared -= group.shares
            self._queue.extendleft(reversed(group.finish()))

