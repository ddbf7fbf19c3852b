"""Order between services: what one waits for, what a start needs, what may stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import AT_REST, WITH_PROCESS, Life, State, Then

LONGEST_PATH = 10  # names of what waits for each other that are told one by one


class Member(Protocol):
    """A service with its life."""

    @property
    def service(self) -> Service: ...

    @property
    def life(self) -> Life: ...


class Hold(StrEnum):
    """How one service can hold another one back."""

    DEPENDS = "depends"
    AFTER = "after"
    CONFLICT = "conflict"
    ADDRESS = "address"


_WORDS = {
    Hold.DEPENDS: "needs {}, which is {}",
    Hold.AFTER: "comes after {}, which is {}",
    Hold.CONFLICT: "conflicts with {}, which is {}",
    Hold.ADDRESS: "needs an address that {} is about to give up",
}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What holds a waiting service back: the service `name`."""

    hold: Hold
    name: str

    def describe(self, units: Mapping[str, Member]) -> str:
        """For people to read, with the state that the other one is in now."""
        return _WORDS[self.hold].format(self.name, _state(units.get(self.name)))


def satisfies(service: Service, life: Life) -> bool:
    """Whether what depends on it may start: it is up or, for a task, it has ended well."""
    if service.task:
        return life.state is State.DONE
    return life.state in (State.RUNNING, State.RELOADING)


def obstacle(service: Service, units: Mapping[str, Member], conflicts: Iterable[str] = ()) -> Obstacle | None:
    """The first thing that holds a waiting service back; None: it can start.

    Of what it conflicts with only what has a process holds it back: between two that have
    none, the one that can start first does.
    """
    for name in service.depends:
        other = units.get(name)
        if other is None or not satisfies(other.service, other.life):
            return Obstacle(Hold.DEPENDS, name)
    for name in service.after:
        other = units.get(name)
        if other is not None and _is_coming(other, units):
            return Obstacle(Hold.AFTER, name)
    for name in conflicts:
        other = units.get(name)
        if other is not None and other.life.state in WITH_PROCESS:
            return Obstacle(Hold.CONFLICT, name)
    return None


def waits_for_ever(service: Service, units: Mapping[str, Member]) -> str | None:
    """Why a waiting service will not start unless somebody starts another one too; None: it will."""
    seen = {service.name}
    path: list[str] = []  # those that wait, from the service on; a chain may be as long as there are services
    todo = [iter(service.depends)]
    while todo:
        name = next(todo[-1], None)
        if name is None:
            todo.pop()
            del path[-1:]
        elif (end := _dead_end(name, units)) is not None:
            if len(path) > LONGEST_PATH:
                path[LONGEST_PATH // 2 : -LONGEST_PATH // 2] = ["…"]
            return "".join(f"needs {other}, which " for other in path) + end
        elif name not in seen and units[name].life.state is State.WAITING:
            seen.add(name)
            path.append(name)
            todo.append(iter(units[name].service.depends))
    return None


def _dead_end(name: str, units: Mapping[str, Member]) -> str | None:
    """Why what needs this one waits for ever, where that is by itself."""
    other = units.get(name)
    if other is None:
        return f"needs {name}, which is not defined"
    if other.life.state in AT_REST and not satisfies(other.service, other.life):
        return f"needs {name}, which is {other.life.state.value} ({other.life.reason})"
    return None


def _is_coming(other: Member, units: Mapping[str, Member]) -> bool:
    """Whether it is on its way up, so that what comes after it has something to wait for."""
    if other.life.state is State.WAITING:
        return waits_for_ever(other.service, units) is None
    if other.life.state is State.STOPPING:
        return other.life.then is Then.START
    return other.life.state is State.STARTING or (other.service.task and other.life.state is State.RUNNING)


def _state(other: Member | None) -> str:
    """With the reason, where it is not that it comes or goes."""
    if other is None:
        return "not defined"
    life = other.life
    return f"{life.state.value} ({life.reason})" if life.state in (State.BACKOFF, State.FAILED) else life.state.value


def in_need(names: Iterable[str], services: Mapping[str, Service], lives: Mapping[str, Life]) -> list[str]:
    """Those that need one of the names, over however many that are not at rest, and are not at rest themselves.

    In order of definition, without the names.
    """
    found = set(names)
    left = [name for name in services if name not in found and lives[name].state not in AT_REST]
    needed_by: dict[str, list[str]] = {}
    for name in left:
        for other in services[name].depends:
            needed_by.setdefault(other, []).append(name)
    todo = list(found)
    while todo:
        more = [name for name in needed_by.get(todo.pop(), ()) if name not in found]
        found.update(more)
        todo.extend(more)
    return [name for name in left if name in found]


def conflicts(services: Mapping[str, Service]) -> dict[str, set[str]]:
    """For each name that has any, the names it conflicts with, whichever of the two says so."""
    result: dict[str, set[str]] = {}
    for name, service in services.items():
        for other in service.conflicts:
            result.setdefault(name, set()).add(other)
            result.setdefault(other, set()).add(name)
    return result


def needed(names: Iterable[str], services: Mapping[str, Service]) -> list[str]:
    """The names and all that they depend on, each after what it needs."""
    order: dict[str, None] = {}
    todo = [(name, False) for name in reversed(list(names))]
    while todo:
        name, entered = todo.pop()
        if name in order:
            continue
        if entered:
            order[name] = None
            continue
        todo.append((name, True))
        needs = [other for other in services[name].depends if other in services and other not in order]
        todo.extend((other, False) for other in reversed(needs))
    return list(order)


def dependents(services: Mapping[str, Service]) -> dict[str, set[str]]:
    """For each name the names of those that come after it, by `depends` or by `after`."""
    result: dict[str, set[str]] = {name: set() for name in services}
    for name, service in services.items():
        for other in (*service.depends, *service.after):
            result.setdefault(other, set()).add(name)
    return result
