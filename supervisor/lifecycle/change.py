"""What two definitions of one service differ in, and what that asks for: the least that does.  Pure.

Keys are those of the definition files: `status`, not the field `autostart`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

from supervisor.definitions.service import Service


class Change(StrEnum):
    """What a changed key asks for, least first."""

    NOTHING = "nothing"
    ADOPT = "adopt"  # spawnd alone needs to know it
    LIMITS = "limits"  # written to the cgroup of the running service
    RESTART = "restart"
    REBUILD = "rebuild"  # descriptors opened or closed, and a restart


ADOPTED = frozenset({
    "after", "backoff", "check", "conflicts", "depends", "description", "functions", "handover_signal", "healthy_after",
    "kill_mode", "reload_signal", "restart", "restart_signal", "start_limit", "start_timeout", "status", "stop_signal",
    "stop_timeout", "task",
})  # fmt: skip
LIMITED = frozenset({
    "cpu_max", "cpu_weight", "io_weight", "memory_high", "memory_max", "memory_swap_max", "pids_max",
})  # fmt: skip
REBUILT = frozenset({"fd", "stdin", "stdout", "stderr", "control"})
PLACE = frozenset({"file", "line", "lines"})  # where it stands in the files does not count
KEYS = {  # fields that are called otherwise
    "autostart": "status",
    "uid": "user",
    "gid": "group",
    "gids": "groups",
    "text": "functions",
    "functions_as_root": "functions",
}
OUTPUTS = ("stdout", "stderr")
ORDER = list(Change)


def change_of_key(key: str) -> Change:
    """What a change of this key asks for.  A key that is in no list asks for a restart: the safe side."""
    if key in ADOPTED:
        return Change.ADOPT
    if key in LIMITED:
        return Change.LIMITS
    return Change.REBUILD if key in REBUILT else Change.RESTART


def changed_keys(old: Service, new: Service) -> list[str]:
    """The keys in which two definitions of one service differ, each once."""
    if not old.worker and _values(old) == _values(new):  # most of them, and soon seen
        return []
    return list(dict.fromkeys(_differing(old, new)))


def change(old: Service, new: Service) -> Change:
    """The least that makes the new definition that of a running service."""
    return greatest(changed_keys(old, new))


def greatest(keys: Iterable[str]) -> Change:
    """What keys that have changed ask for together."""
    return max(map(change_of_key, keys), key=ORDER.index, default=Change.NOTHING)


def _differing(old: Service, new: Service) -> Iterator[str]:
    for field, before, after in zip(FIELDS, _values(old), _values(new), strict=True):
        if field == "resources":
            yield from sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        elif field == "fd":
            if old.own_descriptors() != new.own_descriptors():
                yield field
        elif before != after or (field == "options" and not _same(before, after)):
            yield KEYS.get(field, field)
    if old.worker and new.worker:
        # a worker without the key shares spawnd's log, one that has it does not, whatever it says
        yield from (key for key in OUTPUTS if (key in old.lines) != (key in new.lines))


def _same(one: Any, other: Any) -> bool:
    """Whether free data that is equal is the same for a worker: true is not 1 there."""
    if isinstance(one, dict):
        return all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same, one, other))
    return isinstance(one, bool) is isinstance(other, bool)


FIELDS = tuple(field.name for field in fields(Service) if field.name not in PLACE)
_values = attrgetter(*FIELDS)
