"""Who goes up and who goes down for what is asked: what is needed comes along, what is in conflict goes.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import needed, satisfies
from supervisor.lifecycle.life import AT_REST, Cause, Life
from supervisor.lifecycle.outlook import comes_up, is_wanted


@dataclass(frozen=True, slots=True)
class Up:
    """`renew`: what has a process gets another one.  `needed_by` is empty where somebody asked for it itself."""

    renew: bool
    cause: Cause = Cause.START
    needed_by: str = ""


@dataclass(frozen=True, slots=True)
class Down:
    """`other` is the service that it is about, if any."""

    cause: Cause
    other: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Services as they stand: their definitions, those that wait to take over included, and their lives.

    `conflicts` has for each name that has any the names in conflict with it.  `stopping` are those
    that are to stop, whether they have begun to or wait for their turn.
    """

    services: Mapping[str, Service]
    lives: Mapping[str, Life]
    conflicts: Mapping[str, set[str]]
    stopping: Collection[str]

    def is_wanted(self, name: str) -> bool:
        """Whether it has, or will have, a process unless somebody stops it."""
        return name not in self.stopping and is_wanted(self.lives[name])


class Moves:
    """Orders, before any is given: `up` in order, and `down`.  A name is in one of them at most.

    What was asked for later wins; `displaced` has those at rest that were to go up and lost to
    a rival.  `changed` are services whose definition asks for another process: no move leaves
    them with the one they have.
    """

    def __init__(self, standing: Standing, changed: Container[str] = ()) -> None:
        self.up: dict[str, Up] = {}
        self.down: dict[str, Down] = {}
        self.displaced: dict[str, str] = {}
        self._standing = standing
        self._changed = changed

    def stop(self, names: Iterable[str], cause: Cause, other: str = "") -> None:
        """Have them down; those at rest are."""
        for name in names:
            was_up = self.up.pop(name, None) is not None
            if self._standing.lives[name].state not in AT_REST:
                self.down[name] = Down(cause, other)
            elif was_up:
                self.displaced[name] = other

    def bring_up(self, names: Iterable[str], renew: bool = False, cause: Cause = Cause.START) -> None:
        """Have them up, before them what they need and have not; what they conflict with goes down."""
        standing = self._standing
        asked = dict.fromkeys(names)
        for name, needed_by in _with_needs(asked, standing.services):
            if needed_by and self._comes_up(name):
                continue
            rivals = sorted(standing.conflicts.get(name, ()))
            self.stop((rival for rival in rivals if rival in standing.lives), Cause.CONFLICT, name)
            self.down.pop(name, None)
            self.displaced.pop(name, None)
            if name in self._changed:
                self.up[name] = Up(True, Cause.DEFINITION, needed_by)
            else:
                self.up[name] = Up(renew and not needed_by, Cause.START if needed_by else cause, needed_by)

    def _comes_up(self, name: str) -> bool:
        """Whether it is up or on its way, so that nothing is to be done for what needs it."""
        if name in self.up:
            return True
        if name in self.down or name in self._standing.stopping:
            return False
        service, life = self._standing.services[name], self._standing.lives[name]
        return satisfies(service, life) or comes_up(life)


def _with_needs(asked: Collection[str], services: Mapping[str, Service]) -> list[tuple[str, str]]:
    """The names and all that they need, each after what it needs; with who needs it, for what was not asked for."""
    order = needed(asked, services)
    needed_by: dict[str, str] = {}
    for name in reversed(order):
        needed_by.update(dict.fromkeys(services[name].depends, name))
    return [(name, "" if name in asked else needed_by[name]) for name in order]
