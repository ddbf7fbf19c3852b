"""One row of the accounting, and how it is written down in the spool."""

from __future__ import annotations

import json
from typing import NamedTuple

from workers.reaper.record import Record

LARGEST = 2**63 - 1  # what a database can keep
LATEST = 1e11  # seconds since 1970: what a calendar knows
_SCALARS = {type(None), str, int, float}


class Row(NamedTuple):
    """A released cgroup; the columns of the table, in this order.  Times are seconds since 1970.

    `host`, `boot`, `cgroup` and `ended` together are of this row alone, however often it is sent.
    """

    host: str
    boot: str
    cgroup: int
    ended: float
    parent: int | None
    path: str
    scope: str
    btime: float | None
    cpu_usage_usec: int | None
    cpu_user_usec: int | None
    cpu_system_usec: int | None
    memory_peak: int | None
    memory_events_high: int | None
    memory_events_max: int | None
    memory_events_oom: int | None
    pids_peak: int | None
    pids_forks: int | None
    pids_events_max: int | None
    xattrs: dict[str, str]


COLUMNS = Row._fields
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def make_row(host: str, boot: str, record: Record) -> Row:
    path, scope, inode, parent, btime, ended, statistics, xattrs = record
    counted = [None if number is None else min(number, LARGEST) for number in statistics]
    above = None if parent is None else parent & LARGEST
    members = {text(name): text(value) for name, value in xattrs.items()}
    return Row._make(
        (host, boot, inode & LARGEST, ended, above, text(path), text(scope), btime, *counted, members)
    )


def text(value: str) -> str:
    """As every database takes it: what is no UTF-8, and NUL, is escaped."""
    if value.isascii() and value.isprintable():
        return value
    return value.encode(errors="surrogateescape").decode(errors="backslashreplace").replace("\0", "\\x00")


def encode(row: Row) -> bytes:
    """A line."""
    return _ENCODER.encode(row).encode() + b"\n"


def decode(line: bytes) -> Row:
    """Raises ValueError: it is none, and no database would ever take it."""
    whole = line.decode().removesuffix("\n")
    values, end = _DECODER.raw_decode(whole)
    if end != len(whole) or type(values) is not list or len(values) != len(COLUMNS):
        raise ValueError("not a row")
    if not _SCALARS.issuperset(map(type, values[:-1])):
        raise ValueError("not a row")
    row = Row(*values)
    if None in (row.host, row.boot, row.cgroup, row.path, row.scope) or type(row.xattrs) is not dict:
        raise ValueError("not a row")
    if type(row.ended) not in (int, float) or not 0 <= row.ended < LATEST:
        raise ValueError("not a row")
    return row
