"""Durations and sizes for people: two figures that matter, and the unit."""

from __future__ import annotations

NONE = "-"


def duration(seconds: float | None) -> str:
    """`12s`, `3m05s`, `2h07m`, `5d03h`."""
    if seconds is None:
        return NONE
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def cpu_time(seconds: float | None) -> str:
    """As a duration, but with hundredths as long as they matter."""
    if seconds is None or seconds >= 60:
        return duration(seconds)
    return f"{seconds:.2f}s"


def size(count: int | None) -> str:
    """Bytes in units of 1024: `512B`, `1.5K`, `23M`."""
    if count is None:
        return NONE
    if count < 1024:
        return f"{count}B"
    value = float(count)
    for unit in "KMGTP":
        value /= 1024
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 1023.5:
            break
    return f"{value:.0f}{unit}"
