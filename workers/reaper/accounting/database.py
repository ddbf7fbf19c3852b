"""What the accounting wants of a database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from workers.reaper.accounting.query import Query, Totals
from workers.reaper.accounting.row import Row


class Database(Protocol):
    """Connects by itself when it is first used, and again after a failure."""

    async def insert(self, rows: Sequence[Row]) -> int:
        """Keep rows, all of them or none, of which it may have some already; the number of those that it refuses.

        A row is refused for what is in it.  Raises DatabaseError for anything else.
        """

    async def totals(self, query: Query) -> Totals:
        """Raises DatabaseError."""

    async def forget(self, host: str, before: float, most: int) -> int:
        """Drop rows of a host that ended before then, seconds since 1970, so many at most; how many there were.

        Raises DatabaseError.
        """

    async def close(self) -> None: ...


def open_database(address: str, make: bool = True) -> Database:
    """The one of option `database`; nothing is connected yet.  Without `make` it is only asked, and has to be there."""
    kind, _, rest = address.partition(":")
    if address.startswith("postgresql://"):
        rest = address
    found: Database = import_module(f"workers.reaper.accounting.{kind}").open_database(rest, make)  # only one is needed
    return found


def read_schema(name: str) -> str:
    """The statements of `schema/NAME.sql`."""
    with open(os.path.join(os.path.dirname(__file__), "schema", f"{name}.sql"), encoding="utf-8") as file:
        return file.read()
