"""Differences between two definitions, or two sets of them, and the least that puts them into force.  Pure.

Keys are those of the definition files: `status`, not the field `autostart`.  Each field of `Service` declares the
effect of a change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from supervisor.definitions.service import CHANGES, FIELDS, KEY_OF_FIELD, Change, Service
from supervisor.lifecycle.dependencies import conflicts
from supervisor.lifecycle.life import Life

RESOURCES = "resources"  # whose entries are keys
OUTPUTS = ("stdout", "stderr")
ORDER = list(Change)

_values = attrgetter(*FIELDS)


def change_of_key(key: str) -> Change:
    """Return the effect of a change of this key.

    A key that only another version knows asks for a restart: the safe side.
    """
    return CHANGES.get(key, Change.RESTART)


def changed_keys(old: Service, new: Service) -> list[str]:
    """Return the keys in which two definitions of one service differ, each once."""
    if not old.worker and _values(old) == _values(new):  # most of them, and soon seen
        return []
    return list(dict.fromkeys(_differing(old, new)))


def change(old: Service, new: Service) -> Change:
    """Return the least that makes the new definition that of a running service."""
    return greatest(changed_keys(old, new))


def greatest(keys: Iterable[str]) -> Change:
    """Return the effect of several changed keys together."""
    return max(map(change_of_key, keys), key=ORDER.index, default=Change.NOTHING)


def _differing(old: Service, new: Service) -> Iterator[str]:
    for field, before, after in zip(FIELDS, _values(old), _values(new), strict=True):
        if field == RESOURCES:
            yield from sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        elif field == "fd":
            if old.own_descriptors() != new.own_descriptors():
                yield field
        elif before != after or (field == "options" and not _same(before, after)):
            yield KEY_OF_FIELD[field]
    if old.worker and new.worker:
        # a worker without the key shares spawnd's log, one that has it does not, whatever it says
        yield from (key for key in OUTPUTS if (key in old.lines) != (key in new.lines))


def _same(one: Any, other: Any) -> bool:
    """Return whether free data that is equal is the same for a worker: true is not 1 there."""
    if isinstance(one, dict):
        return all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same, one, other))
    return isinstance(one, bool) is isinstance(other, bool)


class Comparison:
    """Old and new definitions with the lives of all their services.

    `keys` has the changed keys of each service that stays, `kinds` their effect together.  `leaving` are services
    that are in neither set, or only in the new one, and are not gone yet.  `conflicts` are those of both sets, the
    new definition first.  `moved` maps services to a sentence about a path that leads elsewhere by now.
    """

    def __init__(
        self,
        old: Mapping[str, Service],
        new: Mapping[str, Service],
        lives: Mapping[str, Life],
        stopping: Collection[str],
        moved: Mapping[str, str],
    ) -> None:
        self.old = old
        self.new = new
        self.stopping = stopping
        self.lives = {name: lives.get(name, Life()) for name in (*new, *old)}
        self.leaving = {name for name in lives if name not in old}
        self.conflicts = conflicts({**old, **new})
        self.keys = {name: tuple(changed_keys(old[name], new[name])) for name in new if name in old}
        self.kinds: dict[str, Change] = {name: greatest(keys) for name, keys in self.keys.items()}
        self.kinds.update((name, Change.REBUILD) for name in moved if name in self.kinds)
        self.moved = moved
