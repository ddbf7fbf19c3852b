"""Signals by name or number, numbered as `kill -l` numbers them: RTMIN is 34."""

from __future__ import annotations

import re
import signal

from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.values import describe, is_integer

RTMIN = 34  # glibc keeps 32 and 33 for its threads
RTMAX = 64
NAMES = {item.name[3:]: int(item) for item in signal.Signals if item < 32} | {"IOT": 6, "CLD": 17, "POLL": 29}

_REAL_TIME = re.compile(r"(RTMIN|RTMAX)(?:([+-])([0-9]{1,2}))?")


def number(value: object) -> int:
    """The number of a signal: `"TERM"`, `"SIGTERM"`, `"RTMIN+1"` or a number.  Raises Bad."""
    if is_integer(value) or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4):
        assert isinstance(value, int | str)
        found = int(value)
        if not (1 <= found < 32 or RTMIN <= found <= RTMAX):
            raise Bad(f"{describe(value)} is not a signal, they go from 1 to 31 and from {RTMIN} to {RTMAX}")
        return found
    if not isinstance(value, str):
        raise Bad(f'{describe(value)} is not a signal (like "TERM", "RTMIN+1" or a number)')
    name = value.upper().removeprefix("SIG")
    match = _REAL_TIME.fullmatch(name)
    if match:
        return _real_time(value, match)
    if name not in NAMES:
        raise Bad(f"unknown signal {value!r}" + hint(name, [*NAMES, "RTMIN", "RTMAX"]))
    return NAMES[name]


def real_time(value: object) -> int:
    """A real-time signal.  Raises Bad."""
    found = number(value)
    if found < RTMIN:
        raise Bad(f'{describe(value)} is not a real-time signal ("RTMIN+1" to "RTMAX", {RTMIN} to {RTMAX})')
    return found


def _real_time(value: str, match: re.Match[str]) -> int:
    offset = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
    found = (RTMIN if match[1] == "RTMIN" else RTMAX) + offset
    if not RTMIN <= found <= RTMAX:
        raise Bad(f"{value!r} is out of range: real-time signals go from {RTMIN} to {RTMAX}")
    return found


def show(number: int) -> str:
    """The name of a signal, as a definition has it: `TERM`, `RTMIN+1`."""
    if number >= RTMIN:
        return f"RTMIN+{number - RTMIN}" if number > RTMIN else "RTMIN"
    return signal.Signals(number).name.removeprefix("SIG")
