"""A cgroup that has run empty, as a script is told of it: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEFT_OUT = "/…"


@dataclass(frozen=True, slots=True)
class Released:
    """The measurements of a released cgroup; None for a value that the kernel does not tell.

    `path` is the path below the root of the cgroup file system, as `/proc/PID/cgroup` shows it.  A path that is too
    long for that has LEFT_OUT in the place of `left_out` names before the last one.  `fd` is an open
    descriptor (O_PATH or O_RDONLY) of its folder, which may be deleted by now; it stays the maker's, who keeps it open
    until the handlers that were given this object have ended.  `counted` are numbers by the names that
    scripts know them by, times in seconds.
    """

    path: str
    fd: int
    btime: float | None = None  # seconds since the epoch
    age: float | None = None  # seconds
    counted: Mapping[str, float | None] = field(default_factory=dict)
    left_out: int | None = None
