"""The interface of the accounting databases, and a query without a reaper."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from supervisor.varlink.messages import InvalidParameter
from workers.reaper.accounting.query import Query, Totals, make_query
from workers.reaper.accounting.row import Row
from workers.reaper.options import DatabaseError, OptionsError, read_database


class Database(Protocol):
    """A database that connects at its first use, and again after a failure."""

    async def insert(self, rows: Sequence[Row]) -> int:
        """Keep all rows or none, where some may be in the database already; return the number of refused rows.

        A row is refused because of its content. Raises DatabaseError for other failures.
        """

    async def totals(self, query: Query) -> Totals:
        """Return the totals for a query. Raises DatabaseError."""

    async def forget(self, host: str, keep: float, most: int) -> int:
        """Drop at most `most` rows of a host whose cgroups ended more than `keep` seconds ago; return their number.

        Raises DatabaseError, also if the clock cannot be trusted.
        """

    async def close(self) -> None: ...


def open_database(address: str, make: bool = True) -> Database:
    """Return the database of option `database`, not yet connected. Without `make`, it must exist, and is only read."""
    kind, _, rest = address.partition(":")
    if address.startswith("postgresql://"):
        rest = address
    # imports only the required driver
    found: Database = import_module(f"workers.reaper.accounting.{kind}").open_database(rest, make)
    return found


def read_schema(name: str) -> str:
    """Return the statements of `schema/NAME.sql`."""
    with open(os.path.join(os.path.dirname(__file__), "schema", f"{name}.sql"), encoding="utf-8") as file:
        return file.read()


def ask(address: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply to the reaper's method Totals with these parameters. Raises OptionsError, DatabaseError."""
    try:
        kind, _, path = read_database(address).partition(":")
    except ValueError as error:
        raise OptionsError(f"cannot use the database: {error}") from error
    if kind == "sqlite" and not os.path.exists(path):
        raise DatabaseError(f"{path}: there is no such database")
    try:
        query = make_query(parameters)
    except InvalidParameter as error:
        raise OptionsError(f"cannot ask the database: {error}") from error

    async def answer() -> dict[str, Any]:
        database = open_database(address, make=False)
        try:
            found = await database.totals(query)
        finally:
            await database.close()
        return found.reply()

    return asyncio.run(answer())
