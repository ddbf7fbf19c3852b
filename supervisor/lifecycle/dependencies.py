"""Order between services: obstacles to a start, dependencies, dependents, and the graph of all services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import AT_REST, UP, WITH_PROCESS, Life, State, Then, lies_down

LONGEST_PATH = 10  # waiting services that are named one by one

Kind = Literal["depends", "after"]


class Member(Protocol):
    """A service with its life."""

    @property
    def service(self) -> Service: ...

    @property
    def life(self) -> Life: ...


class Hold(StrEnum):
    """How a service holds another one back."""

    DEPENDS = "depends"
    AFTER = "after"
    CONFLICT = "conflict"
    ADDRESS = "address"


_WORDS = {
    Hold.DEPENDS: "needs {}, which {}",
    Hold.AFTER: "comes after {}, which {}",
    Hold.CONFLICT: "conflicts with {}, which {}",
    Hold.ADDRESS: "needs an address that {} is about to give up",
}


class Obstacle(NamedTuple):
    """The service `name`, which holds a waiting service back."""

    hold: Hold
    name: str

    def describe(self, units: Mapping[str, Member]) -> str:
        """Return the text for operators, with the present state of the other service."""
        return _WORDS[self.hold].format(self.name, _state(units.get(self.name)))


def satisfies(service: Service, life: Life) -> bool:
    """Return whether dependents of a service may start: it is up or asleep or, for a task, it has ended well."""
    if service.task:
        return life.state is State.DONE
    return life.state in UP or life.state is State.ASLEEP


def keeps_namespace(service: Service) -> bool:
    """Return whether a service makes a network namespace, in which the sockets of others may have to be opened."""
    return service.worker == "netns"


def obstacle(service: Service, units: Mapping[str, Member], conflicts: Iterable[str] = ()) -> Obstacle | None:
    """Return the first obstacle to the start, or to the sleep, of a waiting service; None if there is none.

    A service in conflict is an obstacle only if it has a process or is asleep. Of two rivals that wait, the first
    that can start does. Sleep needs only the network namespaces of the sockets.
    """
    unit = units.get(service.name)
    is_to_sleep = unit is not None and lies_down(unit.life)
    for name in service.depends:
        other = units.get(name)
        if is_to_sleep and other is not None and not keeps_namespace(other.service):
            continue
        if other is None or not satisfies(other.service, other.life):
            return Obstacle(Hold.DEPENDS, name)
    for name in () if is_to_sleep else service.after:
        other = units.get(name)
        if other is not None and _is_coming(other, units):
            return Obstacle(Hold.AFTER, name)
    for name in conflicts:
        other = units.get(name)
        if other is not None and blocks(other.life):
            return Obstacle(Hold.CONFLICT, name)
    return None


def blocks(life: Life) -> bool:
    """Return whether a service in conflict with another one keeps it waiting."""
    return life.state in WITH_PROCESS or life.state is State.ASLEEP


def waits_for_ever(service: Service, units: Mapping[str, Member]) -> str | None:
    """Return why a waiting service will not start unless another one is started too; None if it will."""
    seen = {service.name}
    path: list[str] = []  # the waiting services, starting with this one; a chain may be as long as there are services
    todo = [iter(service.depends)]
    unit = units.get(service.name)
    if unit is not None and lies_down(unit.life):
        todo = [iter([other for other in service.depends if other in units and keeps_namespace(units[other].service)])]
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
    """Return why dependents of a service wait for ever because of this service itself; else None."""
    other = units.get(name)
    if other is None:
        return f"needs {name}, which is not defined"
    if other.life.state in AT_REST and not satisfies(other.service, other.life):
        return f"needs {name}, which {in_words(other.life.state)} ({other.life.reason})"
    return None


def _is_coming(other: Member, units: Mapping[str, Member]) -> bool:
    """Return whether a service is on its way up, so that services after it have something to wait for."""
    if lies_down(other.life):
        return False
    if other.life.state is State.WAITING:
        return waits_for_ever(other.service, units) is None
    if other.life.state is State.STOPPING:
        return other.life.then is Then.START
    return other.life.state is State.STARTING or (other.service.task and other.life.state is State.RUNNING)


def _state(other: Member | None) -> str:
    """Return the state in words, with the reason of a failure."""
    if other is None:
        return "is not defined"
    life = other.life
    why = f" ({life.reason})" if life.state in (State.BACKOFF, State.FAILED) else ""
    return f"{in_words(life.state)}{why}"


def in_words(state: State) -> str:
    """Return the state as a predicate: `is waiting`, `has failed`."""
    if state is State.FAILED:
        return "has failed"
    return "waits for its next try" if state is State.BACKOFF else f"is {state.value}"


def in_need(names: Iterable[str], services: Mapping[str, Service], lives: Mapping[str, Life]) -> list[str]:
    """Return the dependents of the names, direct or not, that are not at rest; a chain ends at a service at rest.

    They are in order of definition, without the names themselves.
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
    """Return the names in conflict for each name that has any, whichever of the two declares the conflict."""
    result: dict[str, set[str]] = {}
    for name, service in services.items():
        for other in service.conflicts:
            result.setdefault(name, set()).add(other)
            result.setdefault(other, set()).add(name)
    return result


def needed(
    names: Iterable[str], services: Mapping[str, Service], sleeps: Callable[[str], bool] = lambda name: False
) -> list[str]:
    """Return the names and everything that they depend on, each after its dependencies.

    A service that `sleeps` depends only on the services that make the network namespaces of its sockets.
    """
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
        if sleeps(name):
            needs = [other for other in needs if keeps_namespace(services[other])]
        todo.extend((other, False) for other in reversed(needs))
    return list(order)


def dependents(services: Mapping[str, Service]) -> dict[str, set[str]]:
    """Return the names of services after a name, by `depends` or by `after`, for each name that has any."""
    result: dict[str, set[str]] = {}
    for name, service in services.items():
        for other in (*service.depends, *service.after):
            result.setdefault(other, set()).add(name)
    return result


class Edge(NamedTuple):
    """`name` needs `other` (`depends`), or starts after it if both start (`after`)."""

    name: str
    other: str
    kind: Kind


class Graph(NamedTuple):
    """`names` in order of definition; each edge is between two of them."""

    names: tuple[str, ...]
    edges: tuple[Edge, ...]


def make_graph(services: Mapping[str, Service], wanted: Iterable[str] | None = None) -> Graph:
    """Return the graph of all services or, with `wanted`, of these with their dependencies and dependents.

    Two services that are connected by both kinds have one edge, `depends`.
    """
    kept = set(services) if wanted is None else _joined(services, list(wanted)) & services.keys()
    edges = (edge for name in services if name in kept for edge in _edges(services[name]) if edge.other in kept)
    return Graph(tuple(name for name in services if name in kept), tuple(edges))


def _edges(service: Service) -> Iterator[Edge]:
    for other in service.depends:
        yield Edge(service.name, other, "depends")
    for other in service.after:
        if other not in service.depends:
            yield Edge(service.name, other, "after")


def _joined(services: Mapping[str, Service], wanted: list[str]) -> set[str]:
    needs = {name: service.depends for name, service in services.items()}
    needed_by: dict[str, list[str]] = {}
    for name, others in needs.items():
        for other in others:
            needed_by.setdefault(other, []).append(name)
    return _reached(wanted, needs) | _reached(wanted, needed_by)


def _reached(wanted: list[str], steps: Mapping[str, Iterable[str]]) -> set[str]:
    """Return everything that any number of steps reaches from some names, including the names."""
    found: set[str] = set()
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(steps.get(name, ()))
    return found
