"""Which services a caller means: names, patterns of the shell, `all`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from supervisor.control.core import Unit
from supervisor.control.errors import InvalidParameter, NoSuchService

ALL = "all"
MAX_PATTERNS = 64  # each is compared with every service, while nobody else is served
MAX_PATTERN = 256  # characters: longer than any name


def resolve(wanted: Iterable[str], units: Mapping[str, Unit]) -> list[str]:
    """The names meant, each once, in the order given; those of a pattern in order of definition.

    What is built in answers to its exact name alone.  Raises NoSuchService for the first
    that means nothing.
    """
    found: dict[str, None] = {}
    patterns = 0
    for name in wanted:
        if name in units:
            found[name] = None
            continue
        if name != ALL:
            patterns += 1
            if patterns > MAX_PATTERNS:
                raise InvalidParameter("names")
        matching = _matching(name, units)
        if not matching and name != ALL:
            raise NoSuchService(name)
        found.update(dict.fromkeys(matching))
    return list(found)


def _matching(pattern: str, units: Mapping[str, Unit]) -> list[str]:
    if not _is_pattern(pattern):
        return []
    return [name for name, unit in units.items() if _matches(pattern, unit)]


def _is_pattern(name: str) -> bool:
    return name == ALL or (len(name) <= MAX_PATTERN and not set("*?[").isdisjoint(name))


def _matches(pattern: str, unit: Unit) -> bool:
    return not unit.internal and (pattern == ALL or fnmatchcase(unit.name, pattern))


class Wanted:
    """Whom a caller means who goes on meaning them: also those that are defined later.  No names mean all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._patterns = [name for name in names if _is_pattern(name)][:MAX_PATTERNS] if names else [ALL]

    def __contains__(self, unit: Unit) -> bool:
        return unit.name in self._names or any(_matches(pattern, unit) for pattern in self._patterns)
