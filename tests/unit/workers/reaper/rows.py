"""Rows of an accounting."""

from __future__ import annotations

import json

from workers.reaper.accounting.row import Row
from workers.reaper.record import Record
from workers.reaper.statistics import Statistics

SCOPE = "/system.slice/x.scope"
NOVEMBER = 1795300800.0  # 2026-11-21 22:40 UTC

ROW = Row(
    "host", "b7f4a9a6-3f0e-4a37-8d4b-5e54f1d5a001", 1, NOVEMBER, None, f"{SCOPE}/a", SCOPE, NOVEMBER - 60,
    3_000_000, 2_000_000, 1_000_000, 50 << 20, 1, 2, 3, 9, 210, 4, {"account": "alice"},
)  # fmt: skip


def row(cgroup: int, **changes: object) -> Row:
    return ROW._replace(cgroup=cgroup, **changes)  # type: ignore[arg-type]


def encode(row: Row) -> bytes:
    """A line of the spool."""
    return json.dumps(row).encode() + b"\n"


def record(path: str = f"{SCOPE}/a", inode: int = 1, **xattrs: str) -> Record:
    return Record(path, SCOPE, inode, None, None, NOVEMBER, Statistics(cpu_total_us=5), xattrs)


# of a call of Totals, as the control socket hands them on
NO_PARAMETERS = dict.fromkeys(("by", "path", "depth", "xattr", "where", "since", "until", "sort", "top"))
