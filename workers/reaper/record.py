"""What is kept of a cgroup that was released."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from workers.lua.released import Released
from workers.reaper.statistics import Statistics

MICROSECONDS = 1e6
_NAMES = tuple(name.removesuffix("_us") for name in Statistics._fields)  # as scripts know them
_TIMES = tuple(name.removesuffix("_us") for name in Statistics._fields if name.endswith("_us"))


class Record(NamedTuple):
    """`path` is that of /proc/self/cgroup, `inode` the kernel's id of the cgroup, times are seconds since 1970.

    `parent` is the id of the cgroup that it is in, None where that is the scope: what the kernel
    counts for a cgroup has all that was below it in it.
    """

    path: str
    scope: str
    inode: int
    parent: int | None
    btime: float | None
    ended: float
    statistics: Statistics
    xattrs: dict[str, str]

    @property
    def age(self) -> float | None:
        """Seconds."""
        return None if self.btime is None else max(0.0, self.ended - self.btime)


class Journal(Protocol):
    """Where records are kept."""

    def record(self, record: Record) -> None:
        """Keep it.  It is called before a cgroup is deleted, so that what is gone is known."""

    def take_back(self) -> None:
        """Forget the last one: its cgroup lives on."""


def released(record: Record, fd: int) -> Released:
    """What a script is told, times in seconds; `fd` is the folder of the cgroup."""
    told: dict[str, Any] = dict(zip(_NAMES, record.statistics, strict=True))
    for name in _TIMES:
        if told[name] is not None:
            told[name] /= MICROSECONDS
    return Released(record.path, fd, record.btime, record.age, **told)


def read_xattrs(folder: int, names: Iterable[str]) -> dict[str, str]:
    """The extended attributes of a cgroup that it has, by the names as given: `account` is `user.account`.

    Works for one that has been deleted, too.  What is no UTF-8 is escaped.
    """
    found = {}
    for name in names:
        with suppress(OSError):  # it has none of that name, or we may not see it
            value = os.getxattr(folder, name if "." in name else f"user.{name}")
            found[name] = value.decode(errors="backslashreplace")
    return found
