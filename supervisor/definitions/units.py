"""Sizes and durations.

A size is a number of bytes, or text with `k`, `m`, `g` or `t`, 1024 each.  A duration is a
number of seconds, or text with `ms`, `s`, `m`, `h` or `d`; a fraction is allowed.
"""

from __future__ import annotations

import math
import re

from supervisor.definitions.problems import Bad
from supervisor.definitions.service import UNLIMITED
from supervisor.definitions.values import describe, is_integer, is_number

LARGEST = 2**63 - 1  # of rlim_t, off_t and the files of a cgroup; above it is RLIM_INFINITY
LONGEST_S = 100 * 366 * 86400.0

SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"([0-9]{1,20})\s*([kmgt]?)", re.I | re.A)
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,9})?)\s*(ms|[smhd]?)", re.I | re.A)


def size(value: object) -> int:
    """Bytes.  Raises Bad."""
    if is_integer(value):
        assert isinstance(value, int)
        number = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if not match:
            raise Bad(f'{describe(value)} is not a size (like "64k", "5m", "2g"; a plain number is bytes)')
        number = int(match[1]) * SIZES[match[2].lower()]
    if not 0 <= number <= LARGEST:
        raise Bad(f"{describe(value)} is not a possible size")
    return number


def duration(value: object) -> float:
    """Seconds.  Raises Bad."""
    if is_number(value):
        assert isinstance(value, int | float)
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if not match:
            raise Bad(f'{describe(value)} is not a duration (like "500ms", "10s", "5m"; a plain number is seconds)')
        unit = match[2].lower()
        # dividing keeps "100ms" the same number as 0.1
        seconds = float(match[1]) / 1000 if unit == "ms" else float(match[1]) * DURATIONS[unit]
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_S:
        raise Bad(f"{describe(value)} is not a possible duration")
    return seconds


def count(value: object) -> int:
    """A whole number from 0.  Raises Bad."""
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value
    if not is_integer(number):
        raise Bad(f"{describe(value)} is not a whole number")
    assert isinstance(number, int)
    if not 0 <= number <= LARGEST:
        raise Bad(f"{describe(value)} is out of range")
    return number


def is_unlimited(value: object) -> bool:
    return isinstance(value, str) and value.lower() in ("unlimited", "infinity")


__all__ = ["LARGEST", "UNLIMITED", "count", "duration", "is_unlimited", "size"]
