"""Scalar values that are written as text: sizes, durations, signals, file permissions.

A size is a number of bytes, or text with `k`, `m`, `g` or `t`, each 1024 of the one before. A duration is a number of
seconds, or text with `ms`, `s`, `m`, `h` or `d`; a fraction is allowed. Signals have names or numbers, the numbers of
`kill -l`: RTMIN is 34. Permissions are the nine characters of `ls`, or an octal string.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable

from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe, is_integer, is_number

LARGEST = 2**63 - 1  # of rlim_t, off_t and the files of a cgroup; the next number is RLIM_INFINITY
LONGEST_S = 100 * 366 * 86400.0

SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"([0-9]{1,20})\s*([kmgt]?)", re.I | re.A)
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,9})?)\s*(ms|[smhd]?)", re.I | re.A)

RTMIN = 34  # glibc keeps 32 and 33 for its threads
RTMAX = 64
SIGNALS = {item.name[3:]: int(item) for item in signal.Signals if item < 32} | {"IOT": 6, "CLD": 17, "POLL": 29}
_REAL_TIME_SIGNAL = re.compile(r"(RTMIN|RTMAX)(?:([+-])([0-9]{1,2}))?")
_SHOWN = re.compile(r"[r-][w-][x-][r-][w-][x-][r-][w-][x-]")
_WRITTEN = re.compile(r"[0-7]{3}")
_OCTAL = re.compile(r"0?[0-7]{1,3}")


def size(value: object) -> int:
    """Return bytes. Raises InvalidValue."""
    if is_integer(value):
        assert isinstance(value, int)
        number = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if not match:
            raise _not(value, "a size", '"64k", "5m", "2g"; a plain number is bytes')
        number = int(match[1]) * SIZES[match[2].lower()]
    if not 0 <= number <= LARGEST:
        raise InvalidValue(f"{describe(value)} is not a possible size")
    return number


def duration(value: object) -> float:
    """Return seconds. Raises InvalidValue."""
    if is_number(value):
        assert isinstance(value, int | float)
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if not match:
            raise _not(value, "a duration", '"500ms", "10s", "5m"; a plain number is seconds')
        unit = match[2].lower()
        # dividing makes "100ms" the same number as 0.1
        seconds = float(match[1]) / 1000 if unit == "ms" else float(match[1]) * DURATIONS[unit]
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_S:
        raise InvalidValue(f"{describe(value)} is not a possible duration")
    return seconds


def _not(value: object, what: str, examples: str) -> InvalidValue:
    """Return the error for a value that is no size or duration, with its probable notation or examples."""
    from supervisor.definitions import synonyms  # only an error needs it

    meant = (synonyms.size if what == "a size" else synonyms.duration)(value) if isinstance(value, str) else ""
    return InvalidValue(f"{describe(value)} is not {what}{f', write {meant}' if meant else f' (like {examples})'}")


def count(value: object) -> int:
    """Return a whole number from 0 up. Raises InvalidValue."""
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value
    if not is_integer(number):
        raise InvalidValue(f"{describe(value)} is not a whole number")
    assert isinstance(number, int)
    if not 0 <= number <= LARGEST:
        raise InvalidValue(f"{describe(value)} is out of range")
    return number


def is_unlimited(value: object) -> bool:
    return isinstance(value, str) and value.lower() in ("unlimited", "infinity")


def _seconds(value: object) -> int:
    seconds = duration(value)
    if seconds != int(seconds):
        raise InvalidValue(f"{describe(value)} is not a whole number of seconds, which the kernel counts here")
    return int(seconds)


def _microseconds(value: object) -> int:
    return round(duration(value) * 1_000_000)


LIMIT_UNITS: dict[str, Callable[[object], int]] = {
    "as": size,
    "core": size,
    "cpu": _seconds,
    "data": size,
    "fsize": size,
    "locks": count,
    "memlock": size,
    "msgqueue": size,
    "nice": count,
    "nofile": count,
    "nproc": count,
    "rss": size,
    "rtprio": count,
    "rttime": _microseconds,
    "sigpending": count,
    "stack": size,
}


def signal_number(value: object) -> int:
    """Return the number of a signal: `"TERM"`, `"SIGTERM"`, `"RTMIN+1"` or a number. Raises InvalidValue."""
    if is_integer(value) or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4):
        assert isinstance(value, int | str)
        found = int(value)
        if not (1 <= found < 32 or RTMIN <= found <= RTMAX):
            raise InvalidValue(f"{describe(value)} is not a signal, they go from 1 to 31 and from {RTMIN} to {RTMAX}")
        return found
    if not isinstance(value, str):
        raise InvalidValue(f'{describe(value)} is not a signal (like "TERM", "RTMIN+1" or a number)')
    name = value.upper().removeprefix("SIG")
    match = _REAL_TIME_SIGNAL.fullmatch(name)
    if match:
        return _signal_of_match(value, match)
    if name not in SIGNALS:
        raise InvalidValue(f"unknown signal {describe(value)}" + did_you_mean(name, [*SIGNALS, "RTMIN", "RTMAX"]))
    return SIGNALS[name]


def real_time_signal(value: object) -> int:
    """Return the number of a real-time signal. Raises InvalidValue."""
    found = signal_number(value)
    if found < RTMIN:
        raise InvalidValue(f'{describe(value)} is not a real-time signal ("RTMIN+1" to "RTMAX", {RTMIN} to {RTMAX})')
    return found


def _signal_of_match(value: str, match: re.Match[str]) -> int:
    offset = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
    found = (RTMIN if match[1] == "RTMIN" else RTMAX) + offset
    if not RTMIN <= found <= RTMAX:
        raise InvalidValue(f"{describe(value)} is out of range: real-time signals go from {RTMIN} to {RTMAX}")
    return found


def signal_name(number: int) -> str:
    """Return the name of a signal as in a definition: `TERM`, `RTMIN+1`."""
    if number >= RTMIN:
        return f"RTMIN+{number - RTMIN}" if number > RTMIN else "RTMIN"
    return signal.Signals(number).name.removeprefix("SIG")


def umask(value: object) -> int:
    """Return the masked bits: `---rwxrwx` is 0o077. Raises InvalidValue."""
    return _bits(value, "022", '"---rwxrwx" shows the bits that are masked, "077" is the same')


def permissions(value: object) -> int:
    """Return the set bits: `rw-rw----` is 0o660. Raises InvalidValue."""
    return _bits(value, "660", '"rw-rw----" or "660"')


def show_permissions(bits: int) -> str:
    """Return the nine characters for `bits`."""
    return "".join(letter if bits & 0o400 >> place else "-" for place, letter in enumerate("rwxrwxrwx"))


def _bits(value: object, common: str, examples: str) -> int:
    if isinstance(value, str):
        if _SHOWN.fullmatch(value):
            return sum(0o400 >> place for place, letter in enumerate(value) if letter != "-")
        if _OCTAL.fullmatch(value):
            return int(value, 8)
    if is_number(value):
        # 022 is twenty-two in Lua
        meant = f'"{value}"' if _WRITTEN.fullmatch(str(value)) else f'like "{common}"'
        raise InvalidValue(f"{describe(value)} is a number, which Lua reads as decimal: write it as text, {meant}")
    raise InvalidValue(f"{describe(value)} are not permissions ({examples})")
