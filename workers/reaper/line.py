"""The line of the log about a cgroup that was released.

SUFFIX: since=2026-11-21T22:40:00Z cpu=1.5s/1.2s/0.3s[12%] memory=87M reclaim=3 oom=1 procs=9 forks=210[3/s]
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from workers.reaper.statistics import Statistics

MEGABYTE = 1 << 20
LOWEST_RATE = 0.01  # forks a second; fewer say nothing
LEAST_AGE = 0.001  # seconds; below it a share or a rate says nothing, and the clock may have been set


def released_line(suffix: str, statistics: Statistics, btime: float | None, age: float | None) -> str:
    """`suffix` is the path below the scope, `btime` is seconds since 1970, `age` seconds."""
    return " ".join([f"{_printable(suffix)}:", *_parts(statistics, btime, age)])


def _printable(text: str) -> str:
    """Whoever may make cgroups may name them; a line is one line all the same."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _parts(statistics: Statistics, btime: float | None, age: float | None) -> Iterator[str]:
    if btime is not None:
        yield time.strftime("since=%Y-%m-%dT%H:%M:%SZ", time.gmtime(btime))
    if statistics.cpu_total_us is not None:
        yield _cpu(statistics.cpu_total_us, statistics, age)
    if statistics.memory_peak is not None:
        yield f"memory={(statistics.memory_peak + MEGABYTE // 2 - 1) // MEGABYTE}M"
    if reclaim := (statistics.memory_events_high or 0) + (statistics.memory_events_max or 0):
        yield f"reclaim={reclaim}"
    if statistics.memory_events_oom:
        yield f"oom={statistics.memory_events_oom}"
    if statistics.pids_peak is not None:
        yield f"procs={statistics.pids_peak}"
    if statistics.pids_forks is not None:
        yield f"forks={statistics.pids_forks}{_rate(statistics.pids_forks, age)}"
    if statistics.pids_events_max:
        yield f"procs_rejected={statistics.pids_events_max}"


def _cpu(total: int, statistics: Statistics, age: float | None) -> str:
    times = [total]
    if statistics.cpu_user_us is not None and statistics.cpu_system_us is not None:
        times += [statistics.cpu_user_us, statistics.cpu_system_us]
    percent = int(total / 1e4 / age) if age is not None and age >= LEAST_AGE else 0
    share = f"[{percent}%]" if percent >= 1 else ""
    return f"cpu={'/'.join(map(_seconds, times))}{share}"


def _seconds(microseconds: int) -> str:
    """Exact, and without zeros at the end: `1.5s`, `12s`, `0.000923s`."""
    whole, rest = divmod(microseconds, 1_000_000)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") + "s"


def _rate(forks: int, age: float | None) -> str:
    rate = forks / age if age is not None and age >= LEAST_AGE else 0.0
    if rate >= 1:
        return f"[{int(rate)}/s]"
    return f"[{rate * 60:.1f}/m]" if rate >= LOWEST_RATE else ""
