"""Tables with names: `env`, `options`, `backoff`."""

from __future__ import annotations

import math
import re
from typing import Any

from supervisor.definitions.convert.text import usable, word
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad, Path
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Backoff
from supervisor.definitions.units import duration
from supervisor.definitions.values import describe, is_number, table, tag

_VARIABLE = re.compile(r"[^=\0]+")


def names(value: object, example: str) -> dict[str, Any]:
    """The table with names that `value` is.  Raises Bad."""
    found = table(value)
    if found is None:
        raise Bad(f"has to be a table with names, like {example}, not {describe(value)}")
    return found


def environment(value: object, scope: Scope) -> dict[str, str]:
    good: dict[str, str] = {}
    for name, setting in sorted(names(value, '{ HOME = "/srv" }').items()):
        try:
            if not _VARIABLE.fullmatch(name):
                raise Bad(f"{describe(name)} cannot be the name of a variable")
            good[usable(name)] = word(setting)
        except Bad as error:
            scope.bad(error, "env", name)
    return good


def options(value: object, scope: Scope) -> dict[str, Any]:
    """Free data for a worker: text, numbers, true and false, lists, tables with names."""
    found = names(value, "{ name = value }")
    _check_plain(found, scope, ("options",))
    return found


def _check_plain(value: object, scope: Scope, path: Path) -> None:
    if tag(value):
        scope.bad(Bad(f"has to be plain data, not {describe(value)}"), *path)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_plain(name, scope, (*path, name))
            _check_plain(item, scope, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value, 1):
            _check_plain(item, scope, (*path, index))
    elif isinstance(value, str):
        try:
            usable(value)
        except Bad as error:
            scope.bad(error, *path)
    elif isinstance(value, float) and not math.isfinite(value):
        scope.bad(Bad(f"{value} is not a number that can be passed on"), *path)


_BACKOFF = ("first", "factor", "max", "jitter")


def backoff(value: object, scope: Scope) -> Backoff:
    given = names(value, '{ first = "100ms", max = "30s" }')
    good: dict[str, float] = {}
    for name, setting in given.items():
        try:
            good[name] = _backoff_part(name, setting)
        except Bad as error:
            scope.bad(error, "backoff", name)
    found = Backoff(**good)
    if found.max < found.first:
        raise Bad(f"max ({found.max:g} s) is less than first ({found.first:g} s)")
    return found


def _backoff_part(name: str, value: object) -> float:
    if name in ("first", "max"):
        seconds = duration(value)
        if seconds == 0:
            raise Bad("0 is too short: a service that fails at once would spin")
        return seconds
    if name not in _BACKOFF:
        raise Bad("unknown, it has first, factor, max and jitter" + hint(name, _BACKOFF))
    low, high = (1.0, 100.0) if name == "factor" else (0.0, 1.0)
    if not is_number(value) or not low <= float(str(value)) <= high:
        raise Bad(f"has to be a number from {low:g} to {high:g}, not {describe(value)}")
    return float(str(value))
