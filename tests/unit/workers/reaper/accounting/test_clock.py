"""Which clock may have rows dropped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.workers.reaper.accounting.test_sqlite import FakeClock
from tests.unit.workers.reaper.rows import row
from workers.reaper.accounting.sqlite import DAY, HostClock, Sqlite
from workers.reaper.options import DatabaseError

KEEP = 400 * DAY


async def fill(path: Path, clock: FakeClock) -> None:
    """A row of yesterday and one that is too old."""
    database = Sqlite(str(path), True, clock)
    await database.insert([row(1, ended=clock.now() - DAY), row(2, ended=clock.now() - 500 * DAY)])
    await database.close()


def forgetting(path: Path, *moments: FakeClock) -> list[int | str]:
    """Return the results of attempts at these moments, or by their only clock; the first is that of the opening."""

    async def run() -> list[int | str]:
        results: list[int | str] = []
        clock = FakeClock()
        await fill(path, clock)
        database = Sqlite(str(path), True, clock)
        for moment in moments:
            clock.__dict__.update(moment.__dict__)
            try:
                results.append(await database.forget("host", KEEP, 10))
            except DatabaseError as error:
                results.append(str(error))
        await database.close()
        return results

    return asyncio.run(run())


def at(ahead: float = 0.0, gone_by: float = 0.0, synchronised: bool = True) -> FakeClock:
    clock = FakeClock()
    clock.ahead, clock.gone_by, clock.synchronised = ahead, gone_by, synchronised
    return clock


def test_a_clock_that_is_right(tmp_path: Path) -> None:
    assert forgetting(tmp_path / "a.db", at()) == [1]


def test_a_clock_that_is_not_synchronised(tmp_path: Path) -> None:
    problem = "the clock of this host is not synchronised: see timedatectl"
    assert forgetting(tmp_path / "a.db", at(synchronised=False), at()) == [problem, 1]


@pytest.mark.parametrize("years", [1, 2, 90])
def test_a_clock_that_is_years_ahead_from_the_start(tmp_path: Path, years: int) -> None:
    ahead = years * 365 * DAY
    problem = f"the clock is {years * 365 + 1} days past the newest row: if it is right, restart the reaper"
    assert forgetting(tmp_path / "a.db", at(ahead), at(ahead, 500 * DAY), at()) == [problem, problem, 1]


def test_a_clock_that_is_set_later(tmp_path: Path) -> None:
    (first, second) = forgetting(tmp_path / "a.db", at(), at(2 * 365 * DAY))
    assert first == 1
    assert "731 days past the newest row" in str(second)


def test_time_that_goes_by_is_no_error_of_the_clock(tmp_path: Path) -> None:
    assert forgetting(tmp_path / "a.db", at(), at(gone_by=900 * DAY)) == [1, 1]


def test_rows_of_a_wrong_clock_do_not_make_it_right(tmp_path: Path) -> None:
    async def run() -> None:
        clock = FakeClock()
        await fill(tmp_path / "a.db", clock)
        clock.ahead = 2 * 365 * DAY
        database = Sqlite(str(tmp_path / "a.db"), True, clock)
        await database.insert([row(3, ended=clock.now())])
        for _ in range(2):
            with pytest.raises(DatabaseError, match="731 days"):
                await database.forget("host", KEEP, 10)
            await database._in_thread(database._disconnect)  # as after an error
        await database.close()

    asyncio.run(run())


def test_a_new_database_has_no_newest_row(tmp_path: Path) -> None:
    async def run() -> None:
        clock = FakeClock()
        database = Sqlite(str(tmp_path / "a.db"), True, clock)
        assert await database.forget("host", KEEP, 10) == 0
        await database.close()

    asyncio.run(run())


def test_the_clock_of_this_host() -> None:
    clock = HostClock()
    assert clock.now() > 1.7e9
    assert clock.elapsed() > 0
    assert isinstance(clock.is_synchronised(), bool)
