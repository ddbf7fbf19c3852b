"""The file of the database is removed, replaced or moved while a process has it open."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.reaper.rows import row
from workers.reaper.accounting import sqlite
from workers.reaper.accounting.query import Query
from workers.reaper.accounting.sqlite import Sqlite
from workers.reaper.options import DatabaseError

MOVED = "was removed or replaced: rows go to the file that is there now"
Use = Callable[[Sqlite, Path], Coroutine[Any, Any, None]]


def play(folder: Path, use: Use) -> None:
    """With a database that has row 1."""

    async def run() -> None:
        path = folder / "a.db"
        database = Sqlite(str(path), True)
        try:
            assert await database.insert([row(1)]) == 0
            await use(database, path)
        finally:
            await database.close()

    asyncio.run(run())


def cgroups(path: Path) -> list[int]:
    """Return the rows in the file, with its own log beside it if there is one."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [number for (number,) in connection.execute("SELECT cgroup FROM accounting ORDER BY 1")]


async def told_once(database: Sqlite, path: Path) -> None:
    with pytest.raises(DatabaseError, match=MOVED):
        await database.insert([row(2)])
    await database.insert([row(2)])
    await database.insert([row(3)])


@pytest.mark.parametrize("others", [("-wal", "-shm"), ()])
def test_a_file_that_is_removed(tmp_path: Path, others: tuple[str, ...]) -> None:
    async def use(database: Sqlite, path: Path) -> None:
        for suffix in ("", *others):
            os.unlink(f"{path}{suffix}")
        await told_once(database, path)

    play(tmp_path, use)
    assert cgroups(tmp_path / "a.db") == [2, 3]


def test_a_file_that_is_moved_away_has_its_rows(tmp_path: Path) -> None:
    """Its log stays behind: what is in there goes into the file before another one is at that place."""

    async def use(database: Sqlite, path: Path) -> None:
        os.rename(path, tmp_path / "old.db")
        await told_once(database, path)

    play(tmp_path, use)
    assert cgroups(tmp_path / "a.db") == [2, 3]
    assert cgroups(tmp_path / "old.db") == [1]


def test_another_file_in_its_place(tmp_path: Path) -> None:
    """A copy from a backup, say: the log of the file before must not be applied to it."""

    async def other() -> None:
        database = Sqlite(str(tmp_path / "other.db"), True)
        await database.insert([row(number) for number in range(100, 200)])
        await database.close()

    async def use(database: Sqlite, path: Path) -> None:
        await other()
        (tmp_path / "other.db").replace(path)
        await told_once(database, path)

    play(tmp_path, use)
    assert cgroups(tmp_path / "a.db") == [2, 3, *range(100, 200)]


def test_another_file_that_somebody_uses(tmp_path: Path) -> None:
    """With a log of its own, which the end of the old connection must not take away."""

    async def use(database: Sqlite, path: Path) -> None:
        second = Sqlite(str(tmp_path / "other.db"), True)
        await second.insert([row(100)])
        for suffix in ("", "-wal", "-shm"):
            os.replace(f"{tmp_path}/other.db{suffix}", f"{path}{suffix}")
        await told_once(database, path)
        assert second._connection is not None
        await second.close()

    play(tmp_path, use)
    assert cgroups(tmp_path / "a.db") == [2, 3, 100]


def test_a_file_that_goes_during_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows committed to it do not count as kept."""
    insert = sqlite._insert

    async def use(database: Sqlite, path: Path) -> None:
        def removing(connection: sqlite3.Connection, rows: Any) -> None:
            insert(connection, rows)
            os.unlink(path)
            monkeypatch.setattr(sqlite, "_insert", insert)

        monkeypatch.setattr(sqlite, "_insert", removing)
        await told_once(database, path)

    play(tmp_path, use)
    assert cgroups(tmp_path / "a.db") == [2, 3]


def test_a_log_that_is_removed(tmp_path: Path) -> None:
    """Rows that are in it alone go into the file."""

    async def use(database: Sqlite, path: Path) -> None:
        os.unlink(f"{path}-wal")
        await told_once(database, path)

    play(tmp_path, use)
    assert cgroups(tmp_path / "a.db") == [1, 2, 3]


def test_a_question_comes_first(tmp_path: Path) -> None:
    """It is answered from the file that is there, and the next batch tells of the other one all the same."""

    async def use(database: Sqlite, path: Path) -> None:
        os.unlink(path)
        assert (await database.totals(Query())).all.cgroups == 0
        await told_once(database, path)

    play(tmp_path, use)


def test_an_old_file_that_is_read(tmp_path: Path) -> None:
    """Until its reader has ended, its log cannot be emptied, and the new file is left alone."""

    async def use(database: Sqlite, path: Path) -> None:
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM accounting").fetchone()
        await database.insert([row(5)])
        os.rename(path, tmp_path / "old.db")
        with pytest.raises(DatabaseError, match="another program still reads the old file"):
            await database.insert([row(2)])
        assert "a.db" not in os.listdir(tmp_path)
        reader.close()
        await told_once(database, path)

    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "BUSY_PATIENCE", 0.05)
        play(tmp_path, use)
    assert cgroups(tmp_path / "old.db") == [1, 5]
    assert cgroups(tmp_path / "a.db") == [2, 3]
