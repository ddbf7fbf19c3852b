"""Rows on their way: database away, process killed at any moment, full disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.waiting import child_process, wait_exit, wait_until
from tests.unit.workers.reaper.rows import encode, record
from tests.unit.workers.reaper.scenario import until
from workers.reaper.accounting import spool as spool_module
from workers.reaper.accounting import writer as module
from workers.reaper.accounting.database import open_database
from workers.reaper.accounting.query import Query, Totals
from workers.reaper.accounting.row import Row
from workers.reaper.accounting.spool import Spool
from workers.reaper.accounting.writer import AccountingWriter
from workers.reaper.options import DatabaseError

LIMIT = 1 << 20


class Fake:
    """A database that takes rows while it is there."""

    def __init__(self) -> None:
        self.rows: dict[tuple[object, ...], Row] = {}
        self.there = True
        self.fails_after = False  # it keeps the rows, and the answer is lost
        self.batches: list[int] = []

    async def insert(self, rows: Sequence[Row]) -> int:
        if not self.there:
            raise DatabaseError("away")
        for row in rows:
            self.rows[row.host, row.boot, row.cgroup, row.ended] = row
        self.batches.append(len(rows))
        if self.fails_after:
            self.fails_after = False
            raise DatabaseError("connection lost")
        return 0

    async def totals(self, query: Query) -> Totals:
        raise NotImplementedError

    async def forget(self, host: str, keep: float, most: int) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        pass

    def cgroups(self) -> list[int]:
        return sorted(row.cgroup for row in self.rows.values())


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BATCH_PAUSE", "FIRST_RETRY", "LONGEST_RETRY"):
        monkeypatch.setattr(module, name, 0.01)


def start(folder: Path, database: Fake) -> AccountingWriter:
    writer = AccountingWriter("host", "/nonexistent", Spool(str(folder), LIMIT), database)
    writer.start()
    return writer


def test_rows_come_to_the_database_and_leave_the_spool(tmp_path: Path) -> None:
    async def run() -> None:
        database = Fake()
        writer = start(tmp_path, database)
        for number in range(50):
            writer.record([record(inode=number, account="x")])
        writer.take_back([0])
        await until(lambda: len(database.rows) == 49)
        await until(lambda: not list(os.listdir(tmp_path)))
        assert writer.kept == 49
        assert len(database.batches) == 1
        await writer.stop()

    asyncio.run(run())


def test_a_row_that_cannot_be_taken_back_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(fd: int, at: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    async def run() -> None:
        database = Fake()
        writer = start(tmp_path, database)
        writer.record([record(inode=1), record(inode=2)])
        with monkeypatch.context() as patched:
            patched.setattr(spool_module, "_blank", refuse)
            writer.take_back([0])
        await until(lambda: database.cgroups() == [1, 2])
        await writer.stop()

    asyncio.run(run())
    assert "cannot drop a row of the accounting, whose cgroup counts twice: Input/output error" in caplog.text


def test_a_database_that_is_away_for_a_while(tmp_path: Path) -> None:
    async def run() -> None:
        database = Fake()
        database.there = False
        writer = start(tmp_path, database)
        for number in range(50):
            writer.record([record(inode=number)])
            await asyncio.sleep(0.002)
        await until(lambda: writer.trouble == "away")
        database.there = True
        await until(lambda: len(database.rows) == 50)
        await until(lambda: not writer.trouble and writer.spool.size == 0)
        await writer.stop()

    asyncio.run(run())


def test_a_commit_whose_answer_is_lost_counts_once(tmp_path: Path) -> None:
    async def run() -> None:
        database = Fake()
        database.fails_after = True
        writer = start(tmp_path, database)
        writer.record([record()])
        await until(lambda: writer.kept)
        assert database.cgroups() == [1]
        assert database.batches == [1, 1]
        await writer.stop()

    asyncio.run(run())


def test_what_the_database_does_not_have_at_the_end_comes_after_the_next_start(tmp_path: Path) -> None:
    async def run() -> None:
        database = Fake()
        database.there = False
        writer = start(tmp_path, database)
        writer.record([record(inode=1)])
        await writer.stop()
        writer = start(tmp_path, database)
        writer.record([record(inode=2)])
        database.there = True
        await writer.stop()
        assert database.cgroups() == [1, 2]

    asyncio.run(run())


def test_killed_between_the_rows_and_the_ends_of_their_cgroups(tmp_path: Path) -> None:
    """Those that live are released by the next process, and are told of by that one alone."""
    spool, root = tmp_path / "spool", tmp_path / "root"
    for name in "ab":
        (root / name).mkdir(parents=True)
    inode = (root / "a").stat().st_ino

    async def run() -> None:
        database = Fake()
        writer = AccountingWriter("host", str(root), Spool(str(spool), LIMIT), database)
        writer.record([record("/gone", inode=5)])
        living = [record("/a", inode=inode), record("/b", inode=(root / "b").stat().st_ino)]
        writer.record([living[0], record("/also gone", inode=6), living[1], record("/a", inode=inode + 1)])
        os.close(writer.spool._lock)  # killed
        writer = AccountingWriter("host", str(root), Spool(str(spool), LIMIT), database)
        writer.start()
        await writer.stop()
        assert database.cgroups() == sorted([5, 6, inode + 1])

    asyncio.run(run())


def test_what_is_no_row_is_told_of_and_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "0000000000000001.rows").write_bytes(b"garbage\n[]\n")

    async def run() -> None:
        database = Fake()
        writer = start(tmp_path, database)
        writer.record([record()])
        await until(lambda: database.rows)
        assert writer.refused == 2
        await writer.stop()

    asyncio.run(run())
    assert os.listdir(tmp_path) == []


def test_a_full_disk_costs_no_row_while_the_database_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        database = Fake()
        writer = start(tmp_path, database)
        with monkeypatch.context() as patched:
            patched.setattr(Spool, "_write", lambda self, data, rows: False)
            for number in range(10):
                writer.record([record(inode=number)])
            await until(lambda: len(database.rows) == 10)
        await writer.stop()
        assert writer.spool.lost == 0

    asyncio.run(run())


def test_killed_at_any_moment_each_row_is_there_once(tmp_path: Path) -> None:
    """A process makes rows, and a mark for each that it has made; it is killed again and again."""
    spool, marks = tmp_path / "spool", tmp_path / "marks"

    def work(first: int) -> None:
        async def run() -> None:
            database = open_database(f"sqlite:{tmp_path}/a.db")
            writer = AccountingWriter("host", "/nonexistent", Spool(str(spool), LIMIT), database)
            writer.start()
            with marks.open("ab", buffering=0) as file:
                for number in range(first, first + 100_000):
                    writer.record([record(inode=number)])
                    file.write(b"%d\n" % number)
                    if number % 3 == 0:
                        await asyncio.sleep(0.001)

        asyncio.run(run())

    chance = random.Random(1)
    for turn in range(12):
        before = len(marks.read_bytes()) if marks.exists() else 0
        with child_process(lambda turn=turn: work(1 + turn * 1_000_000)) as pid:  # type: ignore[misc]
            _wait_longer(marks, before + chance.randrange(500, 8000))
            os.kill(pid, signal.SIGKILL)
            wait_exit(pid)
    made = [int(number) for number in marks.read_bytes().split(b"\n")[:-1]]

    async def finish() -> None:
        database = open_database(f"sqlite:{tmp_path}/a.db")
        writer = AccountingWriter("host", "/nonexistent", Spool(str(spool), LIMIT), database)
        writer.start()
        await writer.stop()

    asyncio.run(finish())
    connection = sqlite3.connect(tmp_path / "a.db")
    kept = [number for (number,) in connection.execute("SELECT cgroup FROM accounting ORDER BY 1")]
    connection.close()
    assert set(made) <= set(kept)
    assert len(kept) == len(set(kept)) <= len(made) + 12, "one may have been written whose mark was not"


def _wait_longer(path: Path, size: int) -> None:
    def long_enough() -> bool:
        with suppress(FileNotFoundError):
            return path.stat().st_size >= size
        return False

    wait_until(long_enough)


def synced_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the files that are synchronised from now on."""
    names: list[str] = []
    for call in (os.fsync, os.fdatasync):

        def noted(fd: int, call: Callable[[int], None] = call) -> None:
            names.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
            call(fd)

        monkeypatch.setattr(os, call.__name__, noted)
    return names


def test_what_the_database_does_not_take_is_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = synced_names(monkeypatch)
    monkeypatch.setattr(module, "SYNC_PAUSE", 0.05)

    async def run() -> None:
        database = Fake()
        database.there = False
        writer = start(tmp_path, database)
        writer.record([record(inode=1)])
        await until(lambda: len(names) == 2)
        assert names == [next(iter(os.listdir(tmp_path))), tmp_path.name]
        await asyncio.sleep(0.2)
        assert len(names) == 2, "once"
        monkeypatch.setattr(module, "SYNC_PAUSE", 3600.0)
        database.there = True
        await until(lambda: writer.kept)
        writer.record([record(inode=2)])
        await until(lambda: writer.kept == 2)
        assert not writer.spool.take_unsynced(), "what has gone to the database by then is on its disk"
        assert len(names) == 2
        database.there = False
        writer.record([record(inode=3)])
        await writer.stop()
        assert len(names) == 4, "at the end"

    asyncio.run(run())


def test_rows_that_are_too_old_are_dropped_from_time_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGOTTEN_AT_ONCE", 10)
    asked: list[tuple[str, float, int]] = []

    class Old(Fake):
        rows_left = 25

        async def forget(self, host: str, keep: float, most: int) -> int:
            asked.append((host, keep, most))
            gone = min(most, self.rows_left)
            self.rows_left -= gone
            return gone

    async def run() -> None:
        writer = AccountingWriter("host", "/nonexistent", Spool(str(tmp_path), LIMIT), Old(), 3600.0)
        writer.start()
        for number in range(1, 6):
            writer.record([record(inode=number)])
            await until(lambda number=number: writer.kept == number)  # type: ignore[misc]
        await writer.stop()
        assert asked == [("host", 3600.0, 10)] * 3, "then in an hour"

    asyncio.run(run())


def test_a_database_that_forgets_nothing_still_takes_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Unwilling(Fake):
        async def forget(self, host: str, keep: float, most: int) -> int:
            raise DatabaseError("permission denied")

    async def run() -> None:
        writer = AccountingWriter("host", "/nonexistent", Spool(str(tmp_path), LIMIT), Unwilling(), 3600.0)
        writer.start()
        for number in (1, 2):
            writer.record([record(inode=number)])
            await until(lambda number=number: writer.kept == number)  # type: ignore[misc]
        assert not writer.trouble
        await writer.stop()

    asyncio.run(run())
    assert caplog.text.count("cannot drop old rows of the accounting: permission denied") == 1


def test_rows_that_come_while_those_in_memory_are_handed_over_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, has room for a moment, and is full again."""
    full = True
    write = Spool._write
    monkeypatch.setattr(Spool, "_write", lambda self, data, rows: not full and write(self, data, rows))

    class Interrupted(Fake):
        async def insert(self, rows: Sequence[Row]) -> int:
            nonlocal full
            if rows[0].cgroup == 1 and not self.rows:
                full = False
                keeper_spool.close_batch()
                full = True
                keeper_spool.append([encode(rows[0]._replace(cgroup=2))])
            return await super().insert(rows)

    keeper_spool = Spool(str(tmp_path), LIMIT)
    database = Interrupted()

    async def go() -> None:
        nonlocal full
        writer = AccountingWriter("host", "/nonexistent", keeper_spool, database)
        writer.start()
        writer.record([record(inode=1)])
        await until(lambda: writer.kept)
        full = False
        await writer.stop()

    asyncio.run(go())
    assert database.cgroups() == [1, 2]


def test_a_batch_that_somebody_has_removed_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        database = Fake()
        database.there = False
        writer = start(tmp_path, database)
        for number in range(3):
            writer.record([record(inode=number)])
        await until(lambda: writer.spool.batches)
        (batch,) = writer.spool.batches
        (tmp_path / batch).unlink()
        writer.record([record(inode=7)])
        database.there = True
        await until(lambda: writer.kept)
        await until(lambda: not writer.trouble)
        assert database.cgroups() == [7]
        assert writer.spool.lost == 3
        await writer.stop()

    asyncio.run(run())
    assert caplog.text.count(".rows was removed, and with it 3 rows of the accounting") == 1
    assert "there was no room" not in caplog.text


def test_a_batch_that_cannot_be_read_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Spool.read
    bad: set[str] = set()

    def reading(self: Spool, batch: str) -> list[bytes]:
        if batch in bad:
            raise OSError(5, "Input/output error", batch)
        return read(self, batch)

    monkeypatch.setattr(Spool, "read", reading)

    async def run() -> None:
        database = Fake()
        database.there = False
        writer = start(tmp_path, database)
        writer.record([record(inode=1)])
        await until(lambda: writer.spool.batches)
        bad.update(writer.spool.batches)
        writer.record([record(inode=2)])
        database.there = True
        await until(lambda: database.cgroups() == [2])
        await until(lambda: "Input/output error" in writer.trouble)
        writer.record([record(inode=3)])
        await until(lambda: database.cgroups() == [2, 3])
        bad.clear()
        await until(lambda: database.cgroups() == [1, 2, 3])
        await until(lambda: not writer.trouble)
        await writer.stop()

    asyncio.run(run())


def test_a_spool_that_cannot_be_written_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        database = Fake()
        writer = start(tmp_path, database)
        os.rename(tmp_path, f"{tmp_path}-away")
        for number in range(1, 4):
            writer.record([record(inode=number)])
            await until(lambda number=number: writer.kept == number)  # type: ignore[misc]
        await writer.stop()

    asyncio.run(run())
    problem = "cannot write to the spool: No such file or directory: rows of the accounting wait in memory"
    assert caplog.text.count(problem) == 1


def test_what_is_dropped_is_logged_and_why_nothing_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    class Doubting(Fake):
        doubts = True

        async def forget(self, host: str, keep: float, most: int) -> int:
            if self.doubts:
                raise DatabaseError("the clock is wrong")
            return 5

    async def run() -> None:
        database = Doubting()
        writer = AccountingWriter("host", "/nonexistent", Spool(str(tmp_path), LIMIT), database, 400 * 86400.0)
        writer.start()
        for number in range(1, 6):
            database.doubts = number < 3
            writer._forget_next = 0.0
            writer.record([record(inode=number)])
            await until(lambda number=number: writer.kept == number)  # type: ignore[misc]
            await until(lambda: writer._forget_next)
        await writer.stop()

    asyncio.run(run())
    assert caplog.text.count("cannot drop old rows of the accounting: the clock is wrong") == 1
    assert caplog.text.count("dropped 5 rows of the accounting, older than 400 days") == 3
