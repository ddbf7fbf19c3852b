"""Values of directives: booleans, time spans, sizes, as in systemd.syntax(7) and systemd.time(7)."""

from __future__ import annotations

import re

from importer.values import Code, Value
from supervisor.definitions import scalars
from supervisor.definitions.notation import quantity
from supervisor.definitions.problems import InvalidValue

TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
FALSE = frozenset({"0", "no", "n", "false", "f", "off"})
UNITS = {
    **dict.fromkeys(("us", "usec", "µs", "μs"), 1e-6), **dict.fromkeys(("ms", "msec"), 1e-3), "ns": 1e-9, "nsec": 1e-9,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0), **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0), **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0), **dict.fromkeys(("M", "month", "months"), 2629800.0),
    **dict.fromkeys(("y", "year", "years"), 31557600.0),
}  # fmt: skip
SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MOST = 2**63 - 1
LONGEST = 100 * 366 * 86400.0  # seconds
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*([A-Za-zµμ]*)\s*")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*([BKMGT]?)")


class ValueNotUnderstood(ValueError):
    """A value that systemd would refuse, or that has no equivalent; the text says why."""


def boolean(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueNotUnderstood(f"{text!r} is neither yes nor no")


def is_off(text: str) -> bool:
    """Whether a value switches a directive off that is off without it."""
    return text.lower() in FALSE or text == ""


def integer(text: str, low: int, high: int) -> int:
    try:
        number = int(text, 10)
    except ValueError:
        raise ValueNotUnderstood(f"{text!r} is not a whole number") from None
    if not low <= number <= high:
        raise ValueNotUnderstood(f"{number} is not between {low} and {high}")
    return number


def seconds(text: str, unit: float = 1.0) -> float | None:
    """Return a time span in seconds, None for `infinity`; `unit` is that of a number alone."""
    if text == "infinity":
        return None
    total, position = 0.0, 0
    while position < len(text):
        found = _SPAN.match(text, position)
        if not found or (found[2] and found[2] not in UNITS):
            break
        total += float(found[1]) * (UNITS[found[2]] if found[2] else unit)
        position = found.end()
    if position < len(text) or not text:
        raise ValueNotUnderstood(f"{text!r} is not a time span")
    if total > LONGEST:
        raise ValueNotUnderstood(f"{text!r} is too long")
    return round(total, 9)


def duration(number: float) -> Code:
    return Code(quantity.duration(number))


def timeout(text: str) -> Value:
    """Return a limit of time; `false` for none, which systemd writes as 0 or infinity."""
    number = seconds(text)
    return duration(number) if number else False


def size_of(text: str) -> int:
    found = _SIZE.fullmatch(text)
    number = int(float(found[1]) * SIZES[found[2]]) if found else -1
    if not 0 <= number <= MOST:
        raise ValueNotUnderstood(f"{text!r} is not a size")
    return number


def size(text: str) -> Value:
    return Code(quantity.size(size_of(text)))


def memory(text: str) -> Value:
    """Return the value of a memory limit."""
    if text == "infinity":
        return "unlimited"
    if text.endswith("%"):
        raise ValueNotUnderstood("a share of the host's memory has to be written as a size")
    return size(text)


def signal_name(text: str) -> str:
    """Return the name of a signal without SIG."""
    try:
        return scalars.signal_name(scalars.signal_number(int(text) if text.isdecimal() else text))
    except InvalidValue:
        raise ValueNotUnderstood(f"{text!r} is not a signal") from None


def mode(text: str) -> str:
    """Return permissions as octal text of three digits."""
    if re.fullmatch(r"0?[0-7]{3,4}", text) is None or int(text, 8) > 0o777:
        raise ValueNotUnderstood(f"{text!r} has more than the nine bits of permissions, or is no octal number")
    return f"{int(text, 8):03o}"


def absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueNotUnderstood(f"{text!r} is not an absolute path")
    return text
