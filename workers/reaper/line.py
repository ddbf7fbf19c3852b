"""The line of the log about a cgroup that was released.

SUFFIX: since=2026-11-21T22:40:00Z cpu=1.5s/1.2s/0.3s[12%] memory=87M reclaim=3 oom=1 procs=9 forks=210[3/s]
"""

from __future__ import annotations

import time

from workers.reaper.statistics import Statistics

MEGABYTE = 1 << 20
LOWEST_RATE = 0.01  # forks a second; fewer say nothing
LEAST_AGE = 0.001  # seconds; below it a share or a rate says nothing, and the clock may have been set


def released_line(suffix: str, statistics: Statistics, btime: float | None, age: float | None) -> str:
    """`suffix` is the path below the scope, `btime` is seconds since 1970, `age` seconds."""
    total, user, system, peak, high, most, oom, processes, forks, rejected = statistics
    parts = [f"{_printable(suffix)}:"]
    if btime is not None:
        parts.append(time.strftime("since=%Y-%m-%dT%H:%M:%SZ", time.gmtime(btime)))
    if total is not None:
        parts.append(_cpu(total, user, system, age))
    if peak is not None:
        parts.append(f"memory={(peak + MEGABYTE // 2 - 1) // MEGABYTE}M")
    if reclaim := (high or 0) + (most or 0):
        parts.append(f"reclaim={reclaim}")
    if oom:
        parts.append(f"oom={oom}")
    if processes is not None:
        parts.append(f"procs={processes}")
    if forks is not None:
        parts.append(f"forks={forks}{_rate(forks, age)}")
    if rejected:
        parts.append(f"procs_rejected={rejected}")
    return " ".join(parts)


def _printable(text: str) -> str:
    """Whoever may make cgroups may name them; a line is one line all the same."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _cpu(total: int, user: int | None, system: int | None, age: float | None) -> str:
    shown = _seconds(total)
    if user is not None and system is not None:
        shown = f"{shown}/{_seconds(user)}/{_seconds(system)}"
    percent = int(total / 1e4 / age) if age is not None and age >= LEAST_AGE else 0
    return f"cpu={shown}[{percent}%]" if percent >= 1 else f"cpu={shown}"


def _seconds(microseconds: int) -> str:
    """Exact, and without zeros at the end: `1.5s`, `12s`, `0.000923s`."""
    whole, rest = divmod(microseconds, 1_000_000)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") + "s"


def _rate(forks: int, age: float | None) -> str:
    rate = forks / age if age is not None and age >= LEAST_AGE else 0.0
    if rate >= 1:
        return f"[{int(rate)}/s]"
    return f"[{rate * 60:.1f}/m]" if rate >= LOWEST_RATE else ""
