"""Resource limits, setrlimit(2)."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.definitions.convert.mapping import names
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.units import LARGEST, UNLIMITED, count, duration, is_unlimited, size
from supervisor.definitions.values import describe, table

Limit = tuple[int, int]


def _seconds(value: object) -> int:
    seconds = duration(value)
    if seconds != int(seconds):
        raise Bad(f"{describe(value)} is not a whole number of seconds, which the kernel counts here")
    return int(seconds)


def _microseconds(value: object) -> int:
    return round(duration(value) * 1_000_000)


UNITS: dict[str, Callable[[object], int]] = {
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


def limits(value: object, scope: Scope) -> dict[str, Limit]:
    """Soft and hard value of each resource."""
    good: dict[str, Limit] = {}
    for name, setting in sorted(names(value, '{ nofile = 1024, stack = "8m" }').items()):
        try:
            unit = UNITS.get(name)
            if unit is None:
                raise Bad("unknown resource" + hint(name, UNITS))
            good[name] = _limit(setting, unit)
        except Bad as error:
            scope.bad(error, "limits", name)
    return good


def _limit(value: object, unit: Callable[[object], int]) -> Limit:
    pair = table(value)
    if pair is None:
        number = _one(value, unit)
        return number, number
    if set(pair) != {"soft", "hard"}:
        raise Bad("a pair has to be { soft = …, hard = … }")
    soft, hard = _one(pair["soft"], unit), _one(pair["hard"], unit)
    if (LARGEST if soft == UNLIMITED else soft) > (LARGEST if hard == UNLIMITED else hard):
        raise Bad(f"the soft limit {describe(pair['soft'])} is above the hard limit {describe(pair['hard'])}")
    return soft, hard


def _one(value: object, unit: Callable[[object], int]) -> int:
    return UNLIMITED if is_unlimited(value) else unit(value)
