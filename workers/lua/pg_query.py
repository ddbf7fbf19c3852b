"""One query of a script, from `db:execute` to its result."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from workers.lua.errors import Failure
from workers.lua.pg_result import Packed, pack

_INSERT = re.compile(rb"\s*INSERT\b", re.IGNORECASE)
_FINE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)


@dataclass(slots=True, eq=False)
class Query:
    """`params` None: a text by itself, which may hold several statements; the last one's result counts."""

    sql: bytes
    params: list[bytes | None] | None
    deadline: float  # of the loop's clock; until then it waits for a connection
    answer: asyncio.Future[Packed]
    result: PGresult | None = None
    by_itself: bool = False  # it has failed, or another with it, in a transaction that they shared

    @property
    def shares(self) -> bool:
        """Whether it may be in a transaction with others: a row more or less makes no difference to an INSERT."""
        return self.params is not None and not self.by_itself and _INSERT.match(self.sql) is not None

    @property
    def is_fine(self) -> bool:
        return self.result is not None and self.result.status in _FINE

    def finish(self) -> None:
        """Its results are complete, and committed."""
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
