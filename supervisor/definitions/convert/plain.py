"""Plain values: text, paths, names, choices, numbers, durations, true and false."""

from __future__ import annotations

import re
from collections.abc import Callable

from supervisor.definitions import scalars
from supervisor.definitions.checking import Checking
from supervisor.definitions.problems import InvalidValue
from supervisor.definitions.values import describe, is_integer, is_number, is_service_name

PATH_MAX = 4096
NAME_MAX = 255
SHORTEST_IDLE = 0.01  # seconds

_DIGITS = re.compile(r"-?[0-9]{1,9}", re.A)


def usable(value: str) -> str:
    """Return `value` if the kernel accepts it. Raises InvalidValue."""
    if "\0" in value:
        raise InvalidValue(f"{describe(value)} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"{describe(value)} is not UTF-8") from None
    return value


def text(value: object, checking: Checking) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"has to be text, not {describe(value)}")
    return usable(value)


def word(value: object) -> str:
    """Return text, or a number as Lua would print it."""
    if isinstance(value, str):
        return usable(value)
    if is_number(value):
        return f"{value:.14g}" if isinstance(value, float) else str(value)
    raise InvalidValue(f"has to be text or a number, not {describe(value)}")


def description(value: object, checking: Checking) -> str:
    """Return one line of text: a long string in brackets may have several."""
    return " ".join(text(value, checking).split())


def absolute(value: object, checking: Checking) -> str:
    path = text(value, checking)
    if not path.startswith("/"):
        raise InvalidValue(f"{describe(value)} is not an absolute path")
    if len(path.encode()) >= PATH_MAX:
        raise InvalidValue(f"{describe(value)} is longer than the {PATH_MAX - 1} bytes that a path can have")
    return path


def file_name(value: object, checking: Checking) -> str:
    """Return the name of an entry in a folder of the supervisor's choice."""
    name = text(value, checking)
    if not name or name in (".", "..") or "/" in name or len(name.encode()) > NAME_MAX:
        raise InvalidValue(f"{describe(value)} is not a name")
    return name


def service_name(value: object, checking: Checking) -> str:
    name = text(value, checking)
    if not is_service_name(name):
        raise InvalidValue(f"{describe(value)} is not the name of a service")
    return name


def choice(key: str, *names: str) -> Callable[[object, Checking], str]:
    """Return a converter for a key that takes one of `names`."""

    def convert(value: object, checking: Checking) -> str:
        if isinstance(value, str) and value in names:
            return value
        from supervisor.definitions import synonyms  # only an error needs it

        one_of = " or ".join(repr(name) for name in names)
        raise InvalidValue(f"{describe(value)} is not {one_of}{synonyms.word(key, value, names)}")

    return convert


def boolean(value: object, checking: Checking) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue(f"has to be true or false, not {describe(value)}")
    return value


def integer(low: int, high: int) -> Callable[[object, Checking], int]:
    """Return a converter for whole numbers from `low` to `high`."""

    def convert(value: object, checking: Checking) -> int:
        if not is_integer(value):
            is_quoted = isinstance(value, str) and _DIGITS.fullmatch(value) and low <= int(value) <= high
            example = f", write {int(value)} without quotes" if is_quoted else ""  # type: ignore[call-overload]
            raise InvalidValue(f"has to be a whole number from {low} to {high}, not {describe(value)}{example}")
        assert isinstance(value, int)
        if not low <= value <= high:
            raise InvalidValue(f"{value} is out of range, from {low} to {high}")
        return value

    return convert


def duration(value: object, checking: Checking) -> float:
    return scalars.duration(value)


def timeout(value: object, checking: Checking) -> float | None:
    """Return a duration, or None for no limit: `false` or `"unlimited"`."""
    return None if value is False or scalars.is_unlimited(value) else scalars.duration(value)


def stop_timeout(value: object, checking: Checking) -> float | None:
    """Return a timeout, with a notice about 0, which in other supervisors means no limit."""
    seconds = timeout(value, checking)
    if seconds == 0:
        checking.notice("0 kills at once, without time to stop; false means no limit", "stop_timeout")
    return seconds


def positive_timeout(value: object, checking: Checking) -> float | None:
    """Return a timeout other than 0, with which every start would fail."""
    seconds = timeout(value, checking)
    if seconds == 0:
        raise InvalidValue("0 is too short; false means no limit")
    return seconds


def watchdog(value: object, checking: Checking) -> float | None:
    if value is False:
        return None
    seconds = scalars.duration(value)
    if seconds == 0:
        raise InvalidValue("0 is too short; false means no watchdog")
    return seconds


def idle_stop(value: object, checking: Checking) -> float | None:
    """Return seconds, or None for a service that stays: `false`."""
    if value is False:
        return None
    seconds = scalars.duration(value)
    if seconds < SHORTEST_IDLE:
        raise InvalidValue(f"{describe(value)} is too short, the least is 10 ms; false means never")
    return seconds


def timer_slack(value: object, checking: Checking) -> float:
    """Return seconds, at least a nanosecond: 0 would be the kernel's default."""
    seconds = scalars.duration(value)
    if round(seconds * 1e9) < 1:
        raise InvalidValue("has to be at least a nanosecond; without the key the kernel's default counts")
    return seconds


def start_limit(value: object, checking: Checking) -> int | None:
    """Return the number of failures in a row, or None for any number: `false`."""
    return None if value is False else integer(1, 1_000_000)(value, checking)


def signal(value: object, checking: Checking) -> int:
    return scalars.signal_number(value)


def real_time_signal(value: object, checking: Checking) -> int:
    return scalars.real_time_signal(value)


def umask(value: object, checking: Checking) -> int:
    mask = scalars.umask(value)
    if mask & 0o600:
        meant = f"for the permissions {mask:03o} it is '{0o777 & ~mask:03o}'"
        checking.notice(f"masks what the owner of a new file may do with it; {meant}", "umask")
    return mask


def permissions(value: object, checking: Checking) -> int:
    return scalars.permissions(value)


def status(value: object, checking: Checking) -> str:
    return choice("status", "stop", "start", "demand")(value, checking)
