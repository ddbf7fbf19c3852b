"""Lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.definitions.convert.text import absolute, service_name, word
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe, tag


def items(value: object, key: str) -> list[Any]:
    """The list that `value` is.  Raises Bad."""
    if isinstance(value, list):
        return value
    if tag(value) == "pairs":
        raise Bad("has to be a list, without holes (nil) and without names")
    example = f", write {key} = {{ {describe(value)} }}" if isinstance(value, str | int | float) else ""
    raise Bad(f"has to be a list, not {describe(value)}{example}")


def each(values: list[Any], scope: Scope, convert: Callable[[Any, Scope], Any], *path: str) -> list[Any]:
    """Every value of the list at `path` converted; the bad ones are reported and left out."""
    good = []
    for index, value in enumerate(values, 1):
        try:
            good.append(convert(value, scope))
        except Bad as error:
            scope.bad(error, *path, index)
    return good


def _word(value: object, scope: Scope) -> str:
    return word(value)


def arguments(value: object, scope: Scope) -> tuple[str, ...]:
    return tuple(each(items(value, "arg"), scope, _word, "arg"))


def command(value: object, scope: Scope) -> tuple[str, ...]:
    """A program with its arguments."""
    words = items(value, "check")
    if not words:
        raise Bad("has to name a program")
    absolute(words[0], scope)
    return tuple(each(words, scope, _word, "check"))


def paths(value: object, scope: Scope) -> tuple[str, ...]:
    """Absolute paths, or a single one."""
    if isinstance(value, str):
        return (absolute(value, scope),)
    return tuple(each(items(value, "env_file"), scope, absolute, "env_file"))


def services(key: str) -> Callable[[object, Scope], tuple[str, ...]]:
    """A converter that takes names of services, or a single one."""

    def convert(value: object, scope: Scope) -> tuple[str, ...]:
        if isinstance(value, str):
            return (service_name(value, scope),)
        return tuple(dict.fromkeys(each(items(value, key), scope, service_name, key)))

    return convert
