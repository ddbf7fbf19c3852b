"""The common behaviour of the accounting's databases, tested for each."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.unit.workers.reaper.rows import NOVEMBER, ROW, SCOPE, row, total
from workers.reaper.accounting.database import Database
from workers.reaper.accounting.query import Query

DECEMBER = NOVEMBER + 20 * 86400
DAY = 86400.0
OTHER = "/system.slice/y.scope"


async def fill(database: Database) -> None:
    """Four cgroups of two hosts, one of them with another below it, twice sent."""
    rows = [
        row(1),
        row(2, path=f"{SCOPE}/b", ended=DECEMBER, cpu_usage_usec=500_000, memory_peak=99 << 20, xattrs={}),
        row(3, path=f"{SCOPE}/b/inner", parent=2, ended=DECEMBER - 1, cpu_usage_usec=400_000, pids_forks=None),
        row(4, host="other", path=f"{OTHER}/a", scope=OTHER, pids_peak=20, xattrs={"account": "bob", "ü.x": "y'\"%"}),
    ]
    assert await database.insert(rows) == 0
    assert await database.insert(rows[:3]) == 0
    assert await database.insert([]) == 0


async def check_all(database: Database) -> None:
    await fill(database)
    found = await database.totals(Query())
    assert [group.name for group in found.groups] == [SCOPE, OTHER]
    assert found.groups[0] == total(SCOPE, 3, 3.5, 4.0, 2.0, 99 << 20, 2, 4, 6, 9, 420, 8, NOVEMBER, DECEMBER), (
        "what is below is not counted twice"
    )
    assert replace(found.groups[1], name=None) == total(
        None, 1, 3.0, 2.0, 1.0, 50 << 20, 1, 2, 3, 20, 210, 4, NOVEMBER, NOVEMBER
    )
    assert found.all == total(None, 4, 6.5, 6.0, 3.0, 99 << 20, 3, 6, 9, 20, 630, 12, NOVEMBER, DECEMBER)


async def check_selection(database: Database) -> None:
    await fill(database)

    async def cgroups(query: Query) -> dict[str | None, int]:
        return {group.name: group.cgroups for group in (await database.totals(query)).groups}

    assert await cgroups(Query(by="host")) == {"host": 3, "other": 1}
    assert await cgroups(Query(by="xattr", xattr="account")) == {"alice": 2, "bob": 1, None: 1}
    assert await cgroups(Query(by="xattr", xattr="ü.x")) == {"y'\"%": 1, None: 3}
    assert await cgroups(Query(by="path", path=SCOPE)) == {f"{SCOPE}/a": 1, f"{SCOPE}/b": 2}
    assert await cgroups(Query(by="path", path=SCOPE, depth=2)) == {
        f"{SCOPE}/a": 1,
        f"{SCOPE}/b": 1,
        f"{SCOPE}/b/inner": 1,
    }
    assert await cgroups(Query(by="path")) == {"/system.slice": 4}
    assert await cgroups(Query(by="path", path=f"{SCOPE}/b", depth=1)) == {f"{SCOPE}/b": 1, f"{SCOPE}/b/inner": 1}
    assert await cgroups(Query(path="/system.slice/x")) == {}, "a path is more than its first letters"
    assert await cgroups(Query(path="/system_slice/x.scope")) == {}
    assert await cgroups(Query(since=DECEMBER)) == {SCOPE: 1}
    assert await cgroups(Query(until=DECEMBER)) == {SCOPE: 2, OTHER: 1}
    assert await cgroups(Query(since=DECEMBER + 1)) == {}
    assert await cgroups(Query(where={"account": "bob", "ü.x": "y'\"%"})) == {OTHER: 1}
    assert await cgroups(Query(where={"account": "'; DROP TABLE accounting; --"})) == {}


async def check_order(database: Database) -> None:
    await fill(database)

    async def order(**changes: object) -> list[str | None]:
        query = replace(Query(by="host"), **changes)  # type: ignore[arg-type]
        return [group.name for group in (await database.totals(query)).groups]

    assert await order() == ["host", "other"]
    assert await order(sort="pids_peak") == ["other", "host"]
    assert await order(sort="cgroups") == ["host", "other"]
    assert await order(sort="memory_peak", top=1) == ["host"]


async def check_nothing(database: Database) -> None:
    found = await database.totals(Query())
    assert found.groups == ()
    assert found.all == total(None, 0, *[None] * 12)
    none = dict.fromkeys(("cpu_usage_usec", "cpu_user_usec", "cpu_system_usec", "memory_peak", "memory_events_high"))
    await database.insert([row(9, **none, pids_forks=0, btime=None)])
    (group,) = (await database.totals(Query())).groups
    names = ("cpu_total", "memory_peak", "memory_events_high", "pids_forks")
    assert [group.counted[name] for name in names] == [None, None, None, 0]


async def check_forgetting(database: Database) -> None:
    await fill(database)
    now = time.time()
    assert await database.forget("host", now - NOVEMBER + DAY, 10) == 0
    assert await database.forget("host", now - DECEMBER + DAY / 2, 1) == 1
    assert await database.forget("host", now - DECEMBER + DAY / 2, 10) <= 1, "that of the other host"
    left = {group.name: group.last for group in (await database.totals(Query(by="host"))).groups}
    assert left["host"] == DECEMBER


CHECKS = pytest.mark.parametrize("check", [check_all, check_selection, check_order, check_nothing, check_forgetting])
__all__ = ["CHECKS", "ROW"]
