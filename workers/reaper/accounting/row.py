"""Rows of the accounting, and the lines that represent them in the spool."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

from workers.reaper.statistics import COUNTERS, Record, Statistics

LARGEST = 2**63 - 1  # maximum in a database
LATEST = 1e11  # seconds since 1970: the maximum of calendars
_SCALARS = {type(None), str, int, float}


class Row(NamedTuple):
    """A released cgroup; with the statistics one by one, the columns of the table in order.

    Times are seconds since 1970. `host`, `boot`, `cgroup` and `ended` together identify the row, even if it
    is sent twice.
    """

    host: str
    boot: str
    cgroup: int
    ended: float
    parent: int | None
    path: str
    scope: str
    btime: float | None
    statistics: Statistics  # one column for each of COUNTERS
    xattrs: dict[str, str]


COLUMNS = (*Row._fields[:-2], *(counter.column for counter in COUNTERS), Row._fields[-1])
_COUNTED = slice(len(Row._fields) - 2, -1)  # slice of the columns
_DECODER = json.JSONDecoder()
_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def line_start(host: str, boot: str) -> str:
    """Return the start of all lines of this host and boot, for `make_line`."""
    return f"[{_to_json(host)},{_to_json(boot)},"


def make_line(start: str, record: Record) -> bytes:
    """Return the row of a record as a line of JSON that begins with `start`.

    Most of it are numbers, for which a general encoder takes twice as long.
    """
    path, scope, inode, parent, btime, ended, statistics, xattrs, _ = record
    above = "null" if parent is None else parent & LARGEST
    born = "null" if btime is None else repr(btime)
    counted = repr(statistics)[1:-1].replace("None", "null")
    members = _to_json({text(name): text(value) for name, value in xattrs.items()}) if xattrs else "{}"
    # most paths need no escapes
    plain = path.isascii() and path.isprintable() and '"' not in path and "\\" not in path
    name = f'"{path}"' if plain else _to_json(text(path))
    names = f"{name},{_scope_to_json(scope)}"
    return f"{start}{inode & LARGEST},{ended!r},{above},{names},{born},{counted},{members}]\n".encode()


@lru_cache(256)
def _scope_to_json(scope: str) -> str:
    return _to_json(text(scope))


def text(value: str) -> str:
    """Return a text that all databases accept: NUL and bytes that are not UTF-8 are escaped."""
    if value.isascii() and value.isprintable():
        return value
    return value.encode(errors="surrogateescape").decode(errors="backslashreplace").replace("\0", "\\x00")


def decode(line: bytes) -> Row:
    """Return the row of a line. Raises ValueError for an invalid row, which every database would refuse."""
    whole = line.decode().removesuffix("\n")
    values, end = _DECODER.raw_decode(whole)
    if end != len(whole) or type(values) is not list or len(values) != len(COLUMNS):
        raise ValueError("not a row")
    if not _SCALARS.issuperset(map(type, values[:-1])):
        raise ValueError("not a row")
    row = Row._make((*values[: _COUNTED.start], tuple(values[_COUNTED]), values[-1]))
    if None in (row.host, row.boot, row.cgroup, row.path, row.scope) or type(row.xattrs) is not dict:
        raise ValueError("not a row")
    if type(row.ended) not in (int, float) or not 0 <= row.ended < LATEST:
        raise ValueError("not a row")
    return row


def values(row: Row) -> tuple[Any, ...]:
    """Return the values of all columns of a row except the last one."""
    return row[:-2] + row.statistics
