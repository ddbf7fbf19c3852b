"""Statistics of a cgroup (the kernel's Documentation/admin-guide/cgroup-v2.rst), and its record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from supervisor.printable import printable
from workers.lua.released import Released
from workers.reaper.cgroup_calls import HERE, table

_READ = os.O_RDONLY | os.O_CLOEXEC
SIZE = 4096  # bytes
MICROSECONDS = 1e6
MEGABYTE = 1 << 20
LOWEST_RATE = 0.01  # forks per second; lower rates are not shown
LEAST_AGE = 0.001  # seconds; shares and rates of younger cgroups are meaningless, and the clock may have been set


class Counter(NamedTuple):
    """A number that the kernel counts for a cgroup: its source, and its names.

    `name` is used for scripts and replies, with times in seconds; `column` is used for the accounting, with
    times in microseconds. The number is behind `key` in `file` or, without a key, the whole content. Cgroups
    without the controller do not have the file.
    """

    name: str
    column: str
    controller: bytes | None
    file: str
    key: str | None = None

    @property
    def is_time(self) -> bool:
        return self.column.endswith("_usec")

    @property
    def is_peak(self) -> bool:
        """Whether the number is a maximum of the cgroup, rather than a sum that includes all descendants."""
        return self.file.endswith(".peak")


COUNTERS = (
    Counter("cpu_total", "cpu_usage_usec", None, "cpu.stat", "usage_usec"),
    Counter("cpu_user", "cpu_user_usec", None, "cpu.stat", "user_usec"),
    Counter("cpu_system", "cpu_system_usec", None, "cpu.stat", "system_usec"),
    Counter("memory_peak", "memory_peak", b"memory", "memory.peak"),
    Counter("memory_events_high", "memory_events_high", b"memory", "memory.events", "high"),
    Counter("memory_events_max", "memory_events_max", b"memory", "memory.events", "max"),
    Counter("memory_events_oom", "memory_events_oom", b"memory", "memory.events", "oom"),
    Counter("pids_peak", "pids_peak", b"pids", "pids.peak"),
    Counter("pids_forks", "pids_forks", b"pids", "pids.forks"),
    Counter("pids_events_max", "pids_events_max", b"pids", "pids.events", "max"),
)
TABLE = table((counter.file, counter.key, counter.controller) for counter in COUNTERS)  # for the calls of C
Statistics = tuple[int | None, ...]  # one number for each of COUNTERS, times in microseconds; None if not counted


def statistics(numbers: Sequence[int]) -> Statistics:
    """Return the statistics of a reading, where -1 stands for a number that is not counted."""
    return tuple([None if number < 0 else number for number in numbers] if min(numbers) < 0 else numbers)


def shows_use(cpu_usage: int, way: str, above: int = HERE) -> bool:
    """Whether a process has ever been in a cgroup; even the shortest process that ended there has used CPU time.

    A process that moved in and out may have used none; `pids.peak` shows it if the file exists. Raises OSError.
    """
    if cpu_usage > 0:
        return True
    peak = _read(above, f"{way}/pids.peak").strip()
    return peak.isdigit() and int(peak) > 0


def _read(above: int, way: str) -> bytes:
    """Return the content of a file of a cgroup, or b"" if there is no such file."""
    try:
        fd = os.open(way, _READ, dir_fd=above)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, SIZE)
    except OSError:  # ENODEV: the cgroup was deleted meanwhile
        return b""
    finally:
        os.close(fd)


# records


class Record(NamedTuple):
    """A released cgroup; `path` is that of /proc/self/cgroup, `inode` the kernel's id, times are seconds since 1970.

    `parent` is the id of the parent, or None if that is the scope. The numbers of a cgroup include those of
    its descendants.
    """

    path: str
    scope: str
    inode: int
    parent: int | None
    btime: float | None
    ended: float
    statistics: Statistics
    xattrs: dict[str, str]
    left_out: int | None = None  # names omitted from the path, see Released

    @property
    def age(self) -> float | None:
        """Age in seconds."""
        return None if self.btime is None else max(0.0, self.ended - self.btime)


class Journal(Protocol):
    """A store for records."""

    def record(self, records: Sequence[Record]) -> None:
        """Keep records. Called before the cgroups are deleted, so that each deleted cgroup is recorded."""

    def take_back(self, places: Sequence[int]) -> None:
        """Forget the records at these indices of the last call, because their cgroups live on."""


def released(record: Record, fd: int) -> Released:
    """Return a record in the form for scripts, times in seconds; `fd` is the folder of the cgroup."""
    counted = {
        counter.name: number / MICROSECONDS if counter.is_time and number is not None else number
        for counter, number in zip(COUNTERS, record.statistics, strict=True)
    }
    return Released(record.path, fd, record.btime, record.age, counted, record.left_out)


def read_xattrs(folder: int, names: Iterable[str]) -> dict[str, str]:
    """Return the extended attributes of a cgroup under the given names; `account` stands for `user.account`.

    This works for a deleted cgroup, too. Bytes that are not UTF-8 are escaped.
    """
    found = {}
    for name in names:
        with suppress(OSError):  # the attribute is missing or not readable
            value = os.getxattr(folder, name if "." in name else f"user.{name}")
            found[name] = value.decode(errors="backslashreplace")
    return found


# line of the log


def log_line(suffix: str, statistics: Statistics, btime: float | None, age: float | None) -> str:
    """Return the line about a cgroup, `suffix` below its scope; `btime` is seconds since 1970, `age` seconds.

    SUFFIX: since=2026-11-21T22:40:00Z cpu=1.5s/1.2s/0.3s[12%] memory=87M reclaim=3 oom=1 procs=9 forks=210[3/s]
    """
    total, user, system, peak, high, most, oom, processes, forks, rejected = statistics
    line = f"{suffix if suffix.isprintable() else printable(suffix)}:"
    known_age = age if age is not None and age >= LEAST_AGE else None
    if btime is not None:
        line += time.strftime(" since=%Y-%m-%dT%H:%M:%SZ", time.gmtime(btime))
    if total is not None:
        line += f" cpu={total / 1e6:.1f}s"
        if user is not None and system is not None:
            line += f"/{user / 1e6:.1f}s/{system / 1e6:.1f}s"
        if known_age and (percent := int(total / 1e4 / known_age)) >= 1:
            line += f"[{percent}%]"
    if peak is not None:
        line += f" memory={(peak + MEGABYTE // 2 - 1) // MEGABYTE}M"
    if reclaim := (high or 0) + (most or 0):
        line += f" reclaim={reclaim}"
    if oom:
        line += f" oom={oom}"
    if processes is not None:
        line += f" procs={processes}"
    if forks is not None:
        line += f" forks={forks}{_rate(forks / known_age if known_age else 0.0)}"
    if rejected:
        line += f" procs_rejected={rejected}"
    return line


def _rate(rate: float) -> str:
    if rate >= 1:
        return f"[{rate:.0f}/s]"
    return f"[{rate * 60:.1f}/m]" if rate >= LOWEST_RATE else ""
