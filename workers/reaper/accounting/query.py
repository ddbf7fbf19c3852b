"""Queries of the accounting, and the parts of their SQL that all databases share.

The kernel includes the usage of descendants in the numbers of a cgroup. Therefore the numbers of its children (rows
whose `parent` is its `cgroup`) are subtracted from those of each row, so that totals count everything once.
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

# sums, which are included in the statistics of the parent as well
SUMS = tuple(counter.column for counter in COUNTERS if not counter.is_peak)
PEAKS = tuple(counter.column for counter in COUNTERS if counter.is_peak)
SORTS = ("cgroups", *SUMS, *PEAKS)


@dataclass(frozen=True, slots=True)
class Query:
    """Totals of the cgroups at and below `path` that ended from `since` on and before `until`, seconds since 1970.

    `by` is the criterion of the groups: the first `depth` names of the path below `path`, the scope, the
    host, or the value of the extended attribute `xattr`. `where` has required values of extended attributes.
    The result has the `top` groups with the highest `sort`.
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
    """The totals of a group; `name` is None without the attribute. Times are in seconds, None stands for unknown."""

    name: str | None
    cgroups: int
    counted: Mapping[str, float | None]  # by the names of COUNTERS
    first: float | None
    last: float | None

    def reply(self) -> dict[str, Any]:
        return {"name": self.name, "cgroups": self.cgroups, **self.counted, "first": self.first, "last": self.last}


@dataclass(frozen=True, slots=True)
class Totals:
    """The ordered `groups`, and the total of all matching rows."""

    groups: tuple[Total, ...]
    all: Total

    def reply(self) -> dict[str, Any]:
        """Return the reply to the reaper's method Totals."""
        return {"groups": [total.reply() for total in self.groups], "all": self.all.reply()}


def make_query(parameters: Mapping[str, Any]) -> Query:
    """Return the query for the parameters of a call, where None stands for absent. Raises InvalidParameter."""
    given = {name: value for name, value in parameters.items() if value is not None}
    given["path"] = given.get("path", "").rstrip("/")
    given["depth"] = number(parameters, "depth", 1, DEEPEST)
    given["top"] = number(parameters, "top", 20, MAX_TOP)
    query = Query(**given)
    if query.by not in GROUPINGS:
        raise InvalidParameter("by")
    if query.sort not in SORTS:  # it becomes part of the SQL
        raise InvalidParameter("sort")
    if (query.by == "xattr") != bool(query.xattr):
        raise InvalidParameter("xattr")
    return query


def number(parameters: Mapping[str, Any], name: str, default: int, highest: int) -> int:
    """Return a parameter from 1 to `highest`. Raises InvalidParameter."""
    value: int | None = parameters[name]
    if value is None:
        return default
    if not 1 <= value <= highest:
        raise InvalidParameter(name)
    return value


def names_in(path: str) -> int:
    """Return the number of names in a path."""
    return len([name for name in path.split("/") if name])


def aggregates(seconds: str) -> str:
    """Return the columns of an answer after its name, for `to_total`; `seconds` converts `ended` to a number."""
    sums = [f"sum(r.{name} - coalesce(b.{name}, 0)) AS {name}" for name in SUMS]
    peaks = [f"max(r.{name}) AS {name}" for name in PEAKS]
    times = [f"min({seconds}) AS first", f"max({seconds}) AS last"]
    return ", ".join(["count(*) AS cgroups", *sums, *peaks, *times])


def source(table: str) -> str:
    """Return the source of rows `r`, each with the sums of its children `b`."""
    below = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
    return (
        f"{table} r LEFT JOIN (SELECT host, boot, parent, {below} FROM {table} WHERE parent IS NOT NULL"  # noqa: S608
        " GROUP BY host, boot, parent) b ON b.host = r.host AND b.boot = r.boot AND b.parent = r.cgroup"
    )


def to_total(row: dict[str, object]) -> Total:
    """Convert a row of an answer, given by column names."""

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
