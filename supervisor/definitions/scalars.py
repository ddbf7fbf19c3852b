"""Scalar values that are written as text: sizes, durations, rates, hours, signals, file permissions.

A size is a number of bytes, or text with `k`, `m`, `g` or `t`, each 1024 of the one before. A duration is a number of
seconds, or text with `ms`, `s`, `m`, `h` or `d`; a fraction is allowed. A rate has one of the last four units behind a
`/`. Hours are minutes of the week, which begins on Monday. Signals have names or numbers, the numbers of
`kill -l`: RTMIN is 34. Permissions are the nine characters of `ls`, or an octal string.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Iterable, Iterator

from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe, is_integer, is_number

LARGEST = 2**63 - 1  # of rlim_t, off_t and the files of a cgroup; the next number is RLIM_INFINITY
LONGEST_S = 100 * 366 * 86400.0

SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
RATES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_OF_A_RATE = 1_000_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60  # minutes
DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"([0-9]{1,20})\s*([kmgt]?)", re.I | re.A)
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,9})?)\s*(ms|[smhd]?)", re.I | re.A)

_RATE = re.compile(r"([0-9]{1,9})\s*/\s*([a-z]{1,20})", re.I | re.A)
_TIME = r"([0-9]{1,2}):([0-9]{2})"
_HOURS = re.compile(rf"(?:([a-z]{{1,20}})(?:-([a-z]{{1,20}}))?\s+)?{_TIME}\s*-\s*{_TIME}", re.I | re.A)

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


def rate(value: object) -> tuple[int, int]:
    """Return a number and the seconds in which there may be so many: `"10/m"` is (10, 60). Raises InvalidValue."""
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = match[2].lower() if match else ""
    if match is None or unit not in RATES:
        is_spelled_out = any(word.startswith(unit.rstrip("s")) for word in ("second", "minute", "hour", "day"))
        meant = f", write {describe(f'{match[1]}/{unit[0]}')}" if match and is_spelled_out else ""
        meant = meant or ' (like "50/s", "10/m"; h and d are units, too)'
        raise InvalidValue(f"{describe(value)} is not a rate{meant}")
    number = int(match[1])
    if not 1 <= number <= MOST_OF_A_RATE:
        raise InvalidValue(f"{describe(value)} is out of range, from 1 to {MOST_OF_A_RATE}")
    return number, RATES[unit]


def hours(value: object) -> list[tuple[int, int]]:
    """Return begin and end on each day: `"sat 10:00-12:00"`, `"mon-fri 08:00-18:00"`, or without a day on all of them.

    An end may be after the end of the week. Raises InvalidValue.
    """
    match = _HOURS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise InvalidValue(f'{describe(value)} are not hours (like "08:00-18:00", "sat 10:00-12:00")')
    first, last = _day(match[1] or "mon"), _day(match[2] or match[1] or "sun")
    begin, end = _minute(match[3], match[4], DAY - 1), _minute(match[5], match[6], DAY)
    if begin == end:
        raise InvalidValue(f'{describe(value)} ends when it begins; a whole day is "00:00-24:00"')
    length = (end - begin) % DAY or DAY
    days = [(first + number) % len(DAYS) for number in range((last - first) % len(DAYS) + 1)]
    return [(day * DAY + begin, day * DAY + begin + length) for day in sorted(days)]


def _day(name: str) -> int:
    if name.lower() not in DAYS:
        meant = f", write {name[:3].lower()}" if name[:3].lower() in DAYS else did_you_mean(name, DAYS)
        raise InvalidValue(f"{describe(name)} is not a day{meant or ', they are ' + ', '.join(DAYS)}")
    return DAYS.index(name.lower())


def _minute(hour: str, minute: str, latest: int) -> int:
    found = int(hour) * 60 + int(minute)
    if int(minute) > 59 or found > latest:
        raise InvalidValue(f"{describe(f'{hour}:{minute}')} is not a time of day; 24:00 is the last end")
    return found


def show_hours(spans: Iterable[tuple[int, int]]) -> list[str]:
    """Return the texts of begins and ends."""
    days: dict[tuple[int, int], list[int]] = {}
    for begin, end in spans:
        days.setdefault((begin % DAY, end - begin), []).append(begin // DAY)
    return [
        f"{when}{begin // 60:02}:{begin % 60:02}-{_end(begin + length)}"
        for (begin, length), found in days.items()
        for when in _show_days(found)
    ]


def _end(minute: int) -> str:
    shown = minute if minute <= DAY else minute - DAY
    return f"{shown // 60:02}:{shown % 60:02}"


def _show_days(days: list[int]) -> Iterator[str]:
    """Yield `mon-fri `, `sun `, or nothing for every day."""
    if len(days) == len(DAYS):
        yield ""
        return
    first = days[0]
    for day, following in zip(days, [*days[1:], -1], strict=True):
        if following != day + 1:
            yield f"{DAYS[first]} " if first == day else f"{DAYS[first]}-{DAYS[day]} "
            first = following


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
