"""A cgroup that has run empty, as a script is told of it: plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Released:
    """What was measured of a released cgroup; None is what the kernel does not tell.

    `path` is the path below the root of the cgroup file system, as `/proc/PID/cgroup` shows it.  `fd` is an open
    descriptor (O_PATH or O_RDONLY) of its folder, which may be deleted by now; it stays the maker's, who keeps it open
    until the handlers that were given this object have ended.
    """

    path: str
    fd: int
    btime: float | None = None  # seconds since the epoch
    age: float | None = None  # seconds
    cpu_total: float | None = None  # seconds
    cpu_user: float | None = None
    cpu_system: float | None = None
    memory_peak: int | None = None  # bytes
    memory_events_high: int | None = None
    memory_events_max: int | None = None
    memory_events_oom: int | None = None
    pids_peak: int | None = None
    pids_forks: int | None = None
    pids_events_max: int | None = None
