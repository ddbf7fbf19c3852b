"""Questions to the accounting, and the parts of their SQL that all databases share.

The kernel counts for a cgroup what was used below it, too.  So of each row that has
others below it (`parent` is its `cgroup`) theirs is taken off: totals have everything once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.varlink.messages import InvalidParameter
from workers.reaper.statistics import COUNTERS

GROUPINGS = ("scope", "host", "path", "xattr")
MAX_TOP = 1000
DEEPEST = 1000  # names of a path

# what is added up, and is in the statistics of a parent, too
SUMS = tuple(counter.column for counter in COUNTERS if not counter.is_peak)
PEAKS = tuple(counter.column for counter in COUNTERS if counter.is_peak)
SORTS = ("cgroups", *SUMS, *PEAKS)


@dataclass(frozen=True, slots=True)
class Query:
    """Totals of the cgroups at and below `path` that ended from `since` on and before `until`, seconds since 1970.

    `by` is what they are grouped by: the first `depth` names of the path below `path`, the scope, the host,
    or the value of the extended attribute `xattr`.  `where` is what extended attributes have to be.
    `top` groups, those with most of `sort`.
    """

    by: str = "scope"
    path: str = ""
    depth: int = 1
    xattr: str = ""
    where: dict[str, str] = field(default_factory=dict)
    since: float | None = None
    until: float | None = None
    sort: str = "cpu_usage_usec"
    top: int = 20


@dataclass(frozen=True, slots=True)
class Total:
    """`name` is None for what has no such attribute.  Times are seconds, peaks the highest; None: not known."""

    name: str | None
    cgroups: int
    counted: Mapping[str, float | None]  # by the names of COUNTERS
    first: float | None
    last: float | None

    def reply(self) -> dict[str, Any]:
        return {"name": self.name, "cgroups": self.cgroups, **self.counted, "first": self.first, "last": self.last}


@dataclass(frozen=True, slots=True)
class Totals:
    """`groups` in their order, `all` of what matched."""

    groups: tuple[Total, ...]
    all: Total

    def reply(self) -> dict[str, Any]:
        """The reply to the reaper's method Totals."""
        return {"groups": [total.reply() for total in self.groups], "all": self.all.reply()}


def make_query(parameters: Mapping[str, Any]) -> Query:
    """The query that the parameters of a call make, those that are left out None.  Raises InvalidParameter."""
    given = {name: value for name, value in parameters.items() if value is not None}
    given["path"] = given.get("path", "").rstrip("/")
    given["depth"] = number(parameters, "depth", 1, DEEPEST)
    given["top"] = number(parameters, "top", 20, MAX_TOP)
    query = Query(**given)
    if query.by not in GROUPINGS:
        raise InvalidParameter("by")
    if query.sort not in SORTS:  # it goes into SQL
        raise InvalidParameter("sort")
    if (query.by == "xattr") != bool(query.xattr):
        raise InvalidParameter("xattr")
    return query


def number(parameters: Mapping[str, Any], name: str, default: int, highest: int) -> int:
    """A parameter from 1 on.  Raises InvalidParameter."""
    value: int | None = parameters[name]
    if value is None:
        return default
    if not 1 <= value <= highest:
        raise InvalidParameter(name)
    return value


def names_in(path: str) -> int:
    """How many names a path has."""
    return len([name for name in path.split("/") if name])


def aggregates(seconds: str) -> str:
    """The columns of an answer after its name, as `to_total` takes them; `seconds` turns `ended` into a number."""
    sums = [f"sum(r.{name} - coalesce(b.{name}, 0)) AS {name}" for name in SUMS]
    peaks = [f"max(r.{name}) AS {name}" for name in PEAKS]
    times = [f"min({seconds}) AS first", f"max({seconds}) AS last"]
    return ", ".join(["count(*) AS cgroups", *sums, *peaks, *times])


def source(table: str) -> str:
    """The rows `r`, and what the rows below each have together, `b`."""
    below = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
    return (
        f"{table} r LEFT JOIN (SELECT host, boot, parent, {below} FROM {table} WHERE parent IS NOT NULL"  # noqa: S608
        " GROUP BY host, boot, parent) b ON b.host = r.host AND b.boot = r.boot AND b.parent = r.cgroup"
    )


def to_total(row: dict[str, object]) -> Total:
    """One row of an answer, by the names of its columns."""

    def whole(name: str) -> int | None:
        value = row[name]
        return None if value is None else int(str(value))

    def seconds(name: str) -> float | None:
        value = whole(name)
        return None if value is None else value / 1e6

    def moment(name: str) -> float | None:
        value = row[name]
        return None if value is None else float(str(value))

    name = row.get("name")
    return Total(
        name=None if name is None else str(name),
        cgroups=whole("cgroups") or 0,
        counted={counter.name: (seconds if counter.is_time else whole)(counter.column) for counter in COUNTERS},
        first=moment("first"),
        last=moment("last"),
    )
