"""Numbers, durations, yes and no."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.definitions import signals, units
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe, is_integer


def boolean(value: object, scope: Scope) -> bool:
    if not isinstance(value, bool):
        raise Bad(f"has to be true or false, not {describe(value)}")
    return value


def integer(low: int, high: int) -> Callable[[object, Scope], int]:
    """A converter that takes whole numbers from `low` to `high`."""

    def convert(value: object, scope: Scope) -> int:
        if not is_integer(value):
            raise Bad(f"has to be a whole number from {low} to {high}, not {describe(value)}")
        assert isinstance(value, int)
        if not low <= value <= high:
            raise Bad(f"{value} is out of range, from {low} to {high}")
        return value

    return convert


def duration(value: object, scope: Scope) -> float:
    return units.duration(value)


def timeout(value: object, scope: Scope) -> float | None:
    """A duration, or None for no limit: `false` or `"unlimited"`."""
    return None if value is False or units.is_unlimited(value) else units.duration(value)


def positive_timeout(value: object, scope: Scope) -> float | None:
    """As `timeout`, but 0 would never let anything happen."""
    seconds = timeout(value, scope)
    if seconds == 0:
        raise Bad("0 is too short; false means no limit")
    return seconds


def watchdog(value: object, scope: Scope) -> float | None:
    if value is False:
        return None
    seconds = units.duration(value)
    if seconds == 0:
        raise Bad("0 is too short; false means no watchdog")
    return seconds


def start_limit(value: object, scope: Scope) -> int | None:
    """Failures in a row, or None for any number of them: `false`."""
    return None if value is False else integer(1, 1_000_000)(value, scope)


def signal(value: object, scope: Scope) -> int:
    return signals.number(value)


def real_time_signal(value: object, scope: Scope) -> int:
    return signals.real_time(value)
