"""Rows of an accounting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from workers.reaper.accounting.query import Total
from workers.reaper.accounting.row import Row, values
from workers.reaper.statistics import COUNTERS, Record, Statistics

SCOPE = "/system.slice/x.scope"
NOVEMBER = 1795300800.0  # 2026-11-21 22:40 UTC

ROW = Row(
    "host", "b7f4a9a6-3f0e-4a37-8d4b-5e54f1d5a001", 1, NOVEMBER, None, f"{SCOPE}/a", SCOPE, NOVEMBER - 60,
    (3_000_000, 2_000_000, 1_000_000, 50 << 20, 1, 2, 3, 9, 210, 4), {"account": "alice"},
)  # fmt: skip


def row(cgroup: int, **changes: Any) -> Row:
    """Changes are fields, or columns of the statistics."""
    columns = [counter.column for counter in COUNTERS]
    known = dict(zip(columns, ROW.statistics, strict=True))
    statistics = tuple(changes.pop(name, known[name]) for name in columns)
    return ROW._replace(cgroup=cgroup, statistics=statistics, **changes)


def counted(*, times: Sequence[int | None] = (None,) * 3, **numbers: int | None) -> Statistics:
    """Statistics in which nothing else is counted; `times` are all, user's and the system's."""
    return (*times, *(numbers.get(counter.name) for counter in COUNTERS[3:]))


def total(name: str | None, cgroups: int, *rest: float | None) -> Total:
    """`rest` are the numbers of COUNTERS, the first moment and the last one."""
    *numbers, first, last = rest
    names = [counter.name for counter in COUNTERS]
    return Total(name, cgroups, dict(zip(names, numbers, strict=True)), first, last)


def encode(row: Row) -> bytes:
    """A line of the spool."""
    return json.dumps([*values(row), row.xattrs]).encode() + b"\n"


def record(path: str = f"{SCOPE}/a", inode: int = 1, **xattrs: str) -> Record:
    return Record(path, SCOPE, inode, None, None, NOVEMBER, counted(times=(5, None, None)), xattrs)


# of a call of Totals, as the control socket hands them on
NO_PARAMETERS = dict.fromkeys(("by", "path", "depth", "xattr", "where", "since", "until", "sort", "top"))
