"""Lists, and tables with names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.plain import (
    absolute,
    integer,
    service_name,
    usable,
    word,
)
from supervisor.definitions.problems import InvalidValue, Path, did_you_mean
from supervisor.definitions.scalars import LARGEST, LIMIT_UNITS, duration, is_unlimited
from supervisor.definitions.service import UNLIMITED, Backoff
from supervisor.definitions.values import describe, is_number, table, tag

_VARIABLE = re.compile(r"[^=\0]+")
_SHELL = frozenset("\"'\\`$|&;<>()")  # a command line with one of these is not split at its spaces
_BACKOFF = ("first", "factor", "max", "jitter")
Limit = tuple[int, int]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_word(value: object) -> bool:
    return isinstance(value, str) or is_number(value)


def items(value: object, key: str, is_entry: Callable[[object], bool] = _is_text) -> list[Any]:
    """Return the list. Raises InvalidValue, with an example if `value` itself is a valid entry."""
    if isinstance(value, list):
        return value
    if tag(value) == "pairs":
        raise InvalidValue("has to be a list, without holes (nil) and without names")
    example = f", write {key} = {{ {_words(value)} }}" if is_entry(value) else ""
    raise InvalidValue(f"has to be a list, not {describe(value)}{example}")


def _words(value: object) -> str:
    """Return the entries of a list for a single value: a command line has one entry per word."""
    words = value.split() if isinstance(value, str) and not set(value) & _SHELL else []
    return ", ".join(map(describe, words)) if len(words) > 1 else describe(value)


def one_or_more(value: object, checking: Checking, convert: Callable[[Any, Checking], Any], *path: str) -> list[Any]:
    """Convert a list, or a single value, at `path`. Raises InvalidValue; bad values of a list are omitted."""
    if isinstance(value, list) or tag(value) == "pairs":
        return each(items(value, path[-1]), checking, convert, *path)
    return [convert(value, checking)]


def each(values: list[Any], checking: Checking, convert: Callable[[Any, Checking], Any], *path: str) -> list[Any]:
    """Convert every value of the list at `path`; report bad values and omit them."""
    good = []
    for index, value in enumerate(values, 1):
        try:
            good.append(convert(value, checking))
        except InvalidValue as error:
            checking.invalid(error, *path, index)
    return good


def _word(value: object, checking: Checking) -> str:
    return word(value)


def arguments(value: object, checking: Checking) -> tuple[str, ...]:
    return tuple(each(items(value, "arg", _is_word), checking, _word, "arg"))


def command(value: object, checking: Checking) -> tuple[str, ...]:
    """Return a program with its arguments."""
    words = items(value, "check")
    if not words:
        raise InvalidValue("has to name a program")
    absolute(words[0], checking)
    return tuple(each(words, checking, _word, "check"))


def environment_files(value: object, checking: Checking) -> tuple[str, ...]:
    """Return absolute paths, or a single one; a `-` before a path makes the file optional."""
    return tuple(one_or_more(value, checking, _environment_file, "env_file"))


def _environment_file(value: object, checking: Checking) -> str:
    if isinstance(value, str) and value.startswith("-"):
        return f"-{absolute(value[1:], checking)}"
    return absolute(value, checking)


def statuses(key: str) -> Callable[[object, Checking], tuple[int, ...]]:
    """Return a converter for exit statuses, or a single one."""
    status = integer(0, 255)

    def convert(value: object, checking: Checking) -> tuple[int, ...]:
        return tuple(sorted(set(one_or_more(value, checking, status, key))))

    return convert


def services(key: str) -> Callable[[object, Checking], tuple[str, ...]]:
    """Return a converter for names of services, or a single one."""

    def convert(value: object, checking: Checking) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one_or_more(value, checking, service_name, key)))

    return convert


def names(value: object, example: str) -> dict[str, Any]:
    """Return the table, which has to have names. Raises InvalidValue."""
    found = table(value)
    if found is None:
        raise InvalidValue(f"has to be a table with names, like {example}, not {describe(value)}")
    return found


def environment(value: object, checking: Checking) -> dict[str, str]:
    good: dict[str, str] = {}
    for name, setting in sorted(names(value, '{ HOME = "/srv" }').items()):
        try:
            if not _VARIABLE.fullmatch(name):
                raise InvalidValue(f"{describe(name)} cannot be the name of a variable")
            good[usable(name)] = word(setting)
        except InvalidValue as error:
            checking.invalid(error, "env", name)
    return good


def options(value: object, checking: Checking) -> dict[str, Any]:
    """Return free data for a worker: text, numbers, true and false, lists, tables with names."""
    found = names(value, "{ name = value }")
    _check_plain(found, checking, ("options",))
    return found


def _check_plain(value: object, checking: Checking, path: Path) -> None:
    if tag(value):
        checking.problem(f"has to be plain data, not {describe(value)}", *path)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_plain(name, checking, (*path, name))
            _check_plain(item, checking, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value, 1):
            _check_plain(item, checking, (*path, index))
    elif isinstance(value, str):
        try:
            usable(value)
        except InvalidValue as error:
            checking.invalid(error, *path)
    elif isinstance(value, float) and not math.isfinite(value):
        checking.problem(f"{value} is not a number that can be passed on", *path)


def backoff(value: object, checking: Checking) -> Backoff:
    given = names(value, '{ first = "100ms", max = "30s" }')
    good: dict[str, float] = {}
    for name, setting in given.items():
        try:
            good[name] = _backoff_part(name, setting)
        except InvalidValue as error:
            checking.invalid(error, "backoff", name)
    found = Backoff(**good)
    if found.max < found.first:
        raise InvalidValue(f"max ({found.max:g} s) is less than first ({found.first:g} s)")
    return found


def _backoff_part(name: str, value: object) -> float:
    if name in ("first", "max"):
        seconds = duration(value)
        if seconds == 0:
            raise InvalidValue("0 is too short: a service that fails at once would spin")
        return seconds
    if name not in _BACKOFF:
        raise InvalidValue("unknown, it has first, factor, max and jitter" + did_you_mean(name, _BACKOFF))
    low, high = (1.0, 100.0) if name == "factor" else (0.0, 1.0)
    if not is_number(value) or not low <= float(str(value)) <= high:
        raise InvalidValue(f"has to be a number from {low:g} to {high:g}, not {describe(value)}")
    return float(str(value))


def limits(value: object, checking: Checking) -> dict[str, Limit]:
    """Return the soft and the hard value of each resource."""
    good: dict[str, Limit] = {}
    for name, setting in sorted(names(value, '{ nofile = 1024, stack = "8m" }').items()):
        try:
            unit = LIMIT_UNITS.get(name)
            if unit is None:
                from supervisor.definitions.synonyms import resource  # only an error needs it

                raise InvalidValue("unknown resource" + (resource(name) or did_you_mean(name, LIMIT_UNITS)))
            good[name] = _limit(setting, unit)
        except InvalidValue as error:
            checking.invalid(error, "limits", name)
    return good


def _limit(value: object, unit: Callable[[object], int]) -> Limit:
    pair = table(value)
    if pair is None:
        number = _one(value, unit)
        return number, number
    if set(pair) != {"soft", "hard"}:
        raise InvalidValue("a pair has to be { soft = …, hard = … }")
    soft, hard = _one(pair["soft"], unit), _one(pair["hard"], unit)
    if (LARGEST if soft == UNLIMITED else soft) > (LARGEST if hard == UNLIMITED else hard):
        raise InvalidValue(f"the soft limit {describe(pair['soft'])} is above the hard limit {describe(pair['hard'])}")
    return soft, hard


def _one(value: object, unit: Callable[[object], int]) -> int:
    return UNLIMITED if is_unlimited(value) else unit(value)
