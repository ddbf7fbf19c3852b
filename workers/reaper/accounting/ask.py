"""A question to the database of an accounting, without a reaper."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from supervisor.varlink.errors import InvalidParameter
from workers.reaper.accounting.database import open_database
from workers.reaper.accounting.query import make_query
from workers.reaper.errors import DatabaseError, OptionsError
from workers.reaper.options import read_database


def ask(address: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to the reaper's method Totals with these parameters.  Raises OptionsError, DatabaseError."""
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

    async def run() -> dict[str, Any]:
        database = open_database(address, make=False)
        try:
            found = await database.totals(query)
        finally:
            await database.close()
        return {"groups": [asdict(group) for group in found.groups], "all": asdict(found.all)}

    return asyncio.run(run())
