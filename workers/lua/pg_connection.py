"""The connection behind a script's `db`: made, lost and made again, while its queries wait.

When the connection is lost, queries that were not sent yet wait for the next one, for at most `PATIENCE`.
Sent queries fail, because their results are unknown.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque

import psycopg

from workers.lua.libraries import Context
from workers.lua.pg_session import Listener, Packed, Query, Session
from workers.lua.serial_call import SerialCall
from workers.lua.state import Failure, Fault

PATIENCE = 30.0  # seconds that a query waits for a connection; a restart of the server takes less
MOST_WAITING = 50_000  # queries; more would exhaust the host's memory rather than lose the script some rows
# Defaults of the conninfo: a host that is cut off sends nothing, and each handler would wait for hours.
_DEFAULTS = {
    "connect_timeout": "10",  # seconds
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # milliseconds
}
_LONGEST_NAME = 63  # bytes of an identifier; the server would truncate a longer one, and notify under that name
_HEALTHY = 1.0  # seconds; after such a connection the next one is made at once, after another with a delay
_FIRST, _FACTOR, _LONGEST, _JITTER = 0.1, 2, 10.0, 0.1  # seconds between attempts


class PgConnection:
    """Owns the session and the queries. Raises Fault for a conninfo that cannot be parsed."""

    def __init__(self, context: Context, conninfo: bytes, schema: bytes | None) -> None:
        self._loop = context.loop
        self._context = context
        self._schema = schema
        try:
            self._parameters = psycopg.conninfo.conninfo_to_dict(conninfo.decode(errors="surrogateescape"))
        except psycopg.Error as error:
            raise Fault(f"bad argument #1 to 'new' (conninfo expected: {str(error).strip()})") from error
        self._parameters = {**_DEFAULTS, **self._parameters}
        self._queue: deque[Query] = deque()
        self._listeners: dict[bytes, SerialCall] = {}
        self._session: Session | None = None
        self._impatience: asyncio.TimerHandle | None = None
        self._keeping = self._loop.create_task(self._keep())

    def execute(self, sql: bytes, params: list[bytes | None] | None) -> asyncio.Future[Packed]:
        """Queue a query. Raises Failure if too many are waiting, or if a text cannot be sent."""
        if b"\0" in sql or (params and any(value is not None and b"\0" in value for value in params)):
            raise Failure("the query or a parameter has a NUL in it, which PostgreSQL's text cannot hold")
        if len(self._queue) >= MOST_WAITING:
            raise Failure(f"{MOST_WAITING} queries wait for the database already")
        query = Query(sql, params, self._loop.time() + PATIENCE, self._loop.create_future())
        self._queue.append(query)
        if self._session is not None:
            self._session.send()
        elif self._impatience is None:
            self._impatience = self._loop.call_at(query.deadline, self._lose_patience)
        return query.answer

    def listen(self, channel: bytes, callback: int) -> None:
        """Call `callback` for each notification. Raises Fault for an invalid channel, or one with a listener."""
        if not 0 < len(channel) <= _LONGEST_NAME or b"\0" in channel:
            raise Fault(f"bad argument #1 to 'listen' (channel of 1 to {_LONGEST_NAME} bytes expected)")
        if channel in self._listeners:
            raise Fault(f"bad argument #1 to 'listen' (channel '{_text(channel)}' has a listener already)")
        name = f"listener of {_text(channel)!r}"
        self._listeners[channel] = SerialCall(lambda: self._context.call_back(name, callback))
        if self._session is not None:
            self._session.begin([self._listen_query(channel)])

    @property
    def listens(self) -> bool:
        return bool(self._listeners)

    def close(self) -> None:
        self._keeping.cancel()
        if self._impatience is not None:
            self._impatience.cancel()
        if self._session is not None:
            self._session.close("the script's host ends")
        for query in self._queue:
            query.fail("the script's host ends")

    async def _keep(self) -> None:
        """Keep a connection, for ever."""
        delay = 0.0
        before = ""
        while True:
            if delay:
                await asyncio.sleep(delay * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 (no secret)
            begin = self._loop.time()
            try:
                reason = await self._connected()
            except (OSError, ValueError, psycopg.Error) as error:
                reason = " ".join(f"cannot connect: {error}".split())  # the text of libpq has several lines
                lasted = 0.0
            else:
                lasted = self._loop.time() - begin
                before = ""
            level = logging.DEBUG if reason == before else logging.WARNING  # repetitions need no warning
            self._context.log(level, f"database {self._name()}: {reason}; connecting again")
            before = reason
            delay = 0.0 if lasted > _HEALTHY else min(delay * _FACTOR or _FIRST, _LONGEST)

    async def _connected(self) -> str:
        """Connect, and serve the queue until the connection is lost; return the reason."""
        connection = await self._connect()
        lost: asyncio.Future[str] = self._loop.create_future()
        self._session = Session(self._loop, connection, self._queue, Listener(self._notified, lost.set_result))
        self._context.log(logging.INFO, f"database {self._name()}: connected")
        # through the session, because psycopg would keep notifications to itself from now on
        self._session.begin([self._listen_query(channel) for channel in self._listeners])
        try:
            return await lost
        finally:
            self._session = None
            self._watch_patience()

    async def _connect(self) -> psycopg.AsyncConnection[object]:
        """Connect, and set the schema."""
        connection: psycopg.AsyncConnection[object]
        connection = await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True)  # type: ignore[arg-type]
        try:
            if self._schema is not None:
                quoted = _identifier(self._schema)
                await connection.execute("SELECT set_config('search_path', %s, false)", (quoted.decode(),))
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection

    def _notified(self, channel: bytes) -> None:
        if channel in self._listeners:
            self._listeners[channel].request()

    def _lose_patience(self) -> None:
        """Fail the queries whose time is up, which are the first ones."""
        now = self._loop.time()
        while self._session is None and self._queue and self._queue[0].deadline <= now:
            self._queue.popleft().fail(f"no connection to the database for {PATIENCE:g} s")
        self._watch_patience()

    def _watch_patience(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        if self._session is None and self._queue:
            self._impatience = self._loop.call_at(self._queue[0].deadline, self._lose_patience)

    def _listen_query(self, channel: bytes) -> Query:
        query = Query(b"LISTEN " + _identifier(channel), [], self._loop.time(), self._loop.create_future())
        query.answer.add_done_callback(lambda answer: self._log_failure(channel, answer))
        return query

    def _log_failure(self, channel: bytes, listening: asyncio.Future[Packed]) -> None:
        if listening.cancelled() or (error := listening.exception()) is None:
            return
        # the loss of a connection, which ends this as well, has its own line
        if self._session is not None and self._session.is_open:
            text = f"database {self._name()}: cannot listen to {_text(channel)!r}: {error}"
            self._context.log(logging.ERROR, text)

    def _name(self) -> str:
        return repr(str(self._parameters.get("dbname") or self._parameters.get("service") or ""))


def _identifier(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
