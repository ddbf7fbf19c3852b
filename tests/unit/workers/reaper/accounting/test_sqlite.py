from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.accounting.databases import CHECKS
from tests.unit.workers.reaper.rows import NO_PARAMETERS, row
from workers.reaper.accounting import sqlite
from workers.reaper.accounting.database import Database, ask, open_database
from workers.reaper.accounting.query import Query, Totals
from workers.reaper.accounting.sqlite import Sqlite
from workers.reaper.options import DatabaseError


class FakeClock:
    """The host's clock, which is synchronised, and may be set."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds
        self.gone_by = 0.0  # seconds
        self.synchronised = True

    def now(self) -> float:
        return time.time() + self.ahead + self.gone_by

    def elapsed(self) -> float:
        return self.gone_by

    def is_synchronised(self) -> bool:
        return self.synchronised


def with_database(path: Path, use: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        database = Sqlite(str(path), True, FakeClock())
        try:
            await use(database)
        finally:
            await database.close()

    asyncio.run(run())


@CHECKS
def test_it_does_what_is_asked(tmp_path: Path, check: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    with_database(tmp_path / "a.db", check)


def test_it_can_be_read_by_anybody_with_sql(tmp_path: Path) -> None:
    with_database(tmp_path / "a.db", lambda database: _insert(database, 1))
    with sqlite3.connect(tmp_path / "a.db") as connection:
        found = connection.execute("SELECT path, cpu_usage_usec, xattrs FROM accounting").fetchall()
    connection.close()
    assert found == [("/system.slice/x.scope/a", 3_000_000, '{"account": "alice"}')]


def test_closed_it_is_one_file(tmp_path: Path) -> None:
    with_database(tmp_path / "a.db", lambda database: _insert(database, 1))
    assert os.listdir(tmp_path) == ["a.db"]


async def _insert(database: Database, *numbers: int) -> None:
    await database.insert([row(number) for number in numbers])


def test_a_schema_of_another_version_is_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()

    async def use(database: Database) -> None:
        with pytest.raises(DatabaseError, match="version 2, 1 is wanted"):
            await _insert(database, 1)

    with_database(tmp_path / "a.db", use)


def test_it_goes_on_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.db"

    async def use(database: Database) -> None:
        with pytest.raises(DatabaseError, match="unable to open"):
            await _insert(database, 1)
        path.parent.mkdir()
        await _insert(database, 1)
        path.unlink()
        path.write_bytes(b"no database at all" * 100)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        await database.close()
        other = open_database(f"sqlite:{path}")
        with pytest.raises(DatabaseError, match="not a database"):
            await _insert(other, 2)
        path.unlink()
        await _insert(other, 2)
        assert (await other.totals(Query())).all.cgroups == 1
        await other.close()

    asyncio.run(use(open_database(f"sqlite:{path}")))


def test_the_loop_goes_round_while_it_works(tmp_path: Path) -> None:
    async def use(database: Database) -> None:
        await _insert(database, 0)
        blocker = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        insertion = asyncio.get_running_loop().create_task(_insert(database, *range(1, 700)))
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert not insertion.done(), "somebody else writes"
        blocker.execute("COMMIT")
        blocker.close()
        await insertion

    with_database(tmp_path / "a.db", use)


def test_who_only_asks_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "of somebody's?.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="there is no accounting in it"):
        ask(f"sqlite:{path}", NO_PARAMETERS)
    assert path.read_bytes() == before
    with_database(tmp_path / "a.db", lambda database: _insert(database, 1))
    assert ask(f"sqlite:{tmp_path}/a.db", NO_PARAMETERS)["all"]["cgroups"] == 1


def test_the_end_does_not_wait_for_a_long_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def endless(connection: sqlite3.Connection, query: Query) -> Totals:
        begun.set()
        connection.execute("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c")
        raise AssertionError("it ended")

    async def run() -> None:
        database = open_database(f"sqlite:{tmp_path}/a.db")
        await _insert(database, 1)
        asked = asyncio.get_running_loop().create_task(database.totals(Query()))
        await asyncio.to_thread(begun.wait)
        await asyncio.sleep(0.1)
        await database.close()
        with pytest.raises(DatabaseError, match="interrupted"):
            await asked

    monkeypatch.setattr(sqlite, "_totals", endless)
    asyncio.run(run())


@needs_root
@pytest.mark.parametrize("suffix", sqlite.SUFFIXES)
def test_what_a_stranger_can_have_made_is_no_database(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    path = tmp_path / "shared" / f"a.db{suffix}"
    path.touch()
    os.chown(path, 1300, 1300)

    async def use(database: Database) -> None:
        with pytest.raises(DatabaseError, match=f"{path}' belongs to uid 1300, who can have put it there"):
            await database.insert([row(1)])

    with_database(tmp_path / "shared" / "a.db", use)
    assert path.stat().st_size == 0
