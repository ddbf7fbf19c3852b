"""Sizes, durations and limits, with the unit that makes them shortest."""

from __future__ import annotations

from supervisor.definitions.notation import lua
from supervisor.definitions.service import UNLIMITED

SIZES = {"t": 1 << 40, "g": 1 << 30, "m": 1 << 20, "k": 1 << 10}
DURATIONS = {"d": 86400, "h": 3600, "m": 60}
SECOND_US = 1_000_000
PERCENT = 100
SIZE_LIMITS = frozenset({"as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"})


def size(count: int) -> str:
    """Return a size like `"64k"`; a number if no unit fits."""
    for unit, factor in SIZES.items():
        if count and count % factor == 0:
            return lua.string(f"{count // factor}{unit}")
    return str(count)


def duration(seconds: float) -> str:
    """Return `"5m"`, `"90s"`, `"1.5s"`, `"100ms"`; a number of seconds if that would be inexact."""
    for unit, factor in DURATIONS.items():
        if seconds and seconds % factor == 0:
            return lua.string(f"{int(seconds) // factor}{unit}")
    text = lua.number(seconds)
    if "e" in text or len(text.partition(".")[2]) > 9:
        return text  # text may have nine decimals
    milliseconds = round(seconds * 1000)
    if 0 < seconds < 1 and milliseconds / 1000 == seconds:
        return lua.string(f"{milliseconds}ms")
    return lua.string(f"{text}s")


def timeout(seconds: float | None) -> str:
    return "false" if seconds is None else duration(seconds)


def limit(name: str, values: tuple[int, int]) -> str:
    """Return a resource limit: one value, or a pair."""
    soft, hard = (_limit(name, value) for value in values)
    return soft if soft == hard else lua.table({"soft": soft, "hard": hard})


def _limit(name: str, value: int) -> str:
    if value == UNLIMITED:
        return lua.string("unlimited")
    if name in SIZE_LIMITS:
        return size(value)
    if name == "cpu":
        return duration(value)
    return duration(value / SECOND_US) if name == "rttime" else str(value)


def resource(key: str, value: str | None) -> str:
    """Return the value of a kernel's cgroup file in the notation of the definition."""
    if value is None:
        return lua.NIL
    first, *rest = value.split()
    if first == "max":
        return lua.string("unlimited")
    if key == "cpu_max":
        return lua.string(f"{lua.number(int(first) * PERCENT / int(rest[0]))}%")
    return size(int(first)) if key.startswith("memory_") else first
