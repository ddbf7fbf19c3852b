"""One row of the accounting, and how it is written down in the spool."""

from __future__ import annotations

import json
from functools import lru_cache
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
_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def line_start(host: str, boot: str) -> str:
    """What lines of this host and boot begin with, for `make_line`."""
    return f"[{_to_json(host)},{_to_json(boot)},"


def make_line(start: str, record: Record) -> bytes:
    """The row of a record as a line of JSON, which begins with `start`.

    A general encoder takes twice as long for what are numbers, nearly all of it.
    """
    path, scope, inode, parent, btime, ended, statistics, xattrs = record
    above = "null" if parent is None else parent & LARGEST
    born = "null" if btime is None else repr(btime)
    counted = ",".join(["null" if number is None else str(min(number, LARGEST)) for number in statistics])
    members = _to_json({text(name): text(value) for name, value in xattrs.items()}) if xattrs else "{}"
    names = f"{_to_json(text(path))},{_scope_to_json(scope)}"
    return f"{start}{inode & LARGEST},{ended!r},{above},{names},{born},{counted},{members}]\n".encode()


@lru_cache(256)
def _scope_to_json(scope: str) -> str:
    return _to_json(text(scope))


def text(value: str) -> str:
    """As every database takes it: what is no UTF-8, and NUL, is escaped."""
    if value.isascii() and value.isprintable():
        return value
    return value.encode(errors="surrogateescape").decode(errors="backslashreplace").replace("\0", "\\x00")


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
