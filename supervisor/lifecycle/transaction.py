"""The services to start and stop for a request, with dependencies and conflicts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import NamedTuple

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import Member, needed, satisfies, waits_for_ever
from supervisor.lifecycle.life import AT_REST, Cause, Life, State, comes_up, goes_down, is_down, is_wanted, lies_down


class Up(NamedTuple):
    """An order to be up. `renew`: a service that has a process gets another one. `sleeps`: it is to be asleep.

    `needed_by` is empty for a service that was requested by name. `detail` is a sentence that says more than
    `cause`, if there is one. `ends_sessions`: a renewed service with `accept` ends its sessions as well.
    """

    renew: bool
    cause: Cause = Cause.START
    needed_by: str = ""
    detail: str = ""
    sleeps: bool = False
    ends_sessions: bool = False


class Down(NamedTuple):
    """An order to be down; `other` is the service that the cause is about, if any."""

    cause: Cause
    other: str = ""


class Standing(NamedTuple):
    """Present standing of the services: their definitions, pending ones in place of present ones, and their lives.

    `conflicts` has the names in conflict for each name that has any. `stopping` are services that are to
    stop, even if their turn has not come.
    """

    services: Mapping[str, Service]
    lives: Mapping[str, Life]
    conflicts: Mapping[str, set[str]]
    stopping: Collection[str]

    def is_wanted(self, name: str) -> bool:
        """Return whether a service has, or will have, a process unless it is stopped."""
        return name not in self.stopping and is_wanted(self.lives[name])


class Transaction:
    """Orders, before any is carried out: `up` in order, and `down`. A name is in at most one of them.

    The later request wins. `displaced` has services at rest that should have come up and lost to a rival.
    `changed` are services whose definition asks for another process: an order to be up renews each of them.
    """

    def __init__(self, standing: Standing, changed: Container[str] = ()) -> None:
        self.up: dict[str, Up] = {}
        self.down: dict[str, Down] = {}
        self.displaced: dict[str, str] = {}
        self._standing = standing
        self._changed = changed

    def stop(self, names: Iterable[str], cause: Cause, other: str = "") -> None:
        """Order services down; services at rest are down already."""
        for name in names:
            was_up = self.up.pop(name, None) is not None
            if not is_down(self._standing.lives[name]):
                self.down[name] = Down(cause, other)
            elif was_up:
                self.displaced[name] = other

    def bring_up(
        self,
        names: Iterable[str],
        renew: bool = False,
        cause: Cause = Cause.START,
        ordered: bool = False,
        asleep: bool = False,
    ) -> None:
        """Order services up, after their missing dependencies; services in conflict with them go down.

        Services on demand that have no process are to be asleep, unless they are `ordered` by name. `asleep`: so are
        all these services, whether they have a process or not.
        """
        standing = self._standing
        asked = dict.fromkeys(names)

        def sleeps(name: str) -> bool:
            if name in asked and (ordered or asleep):
                return asleep
            return standing.services[name].demand and not comes_up(standing.lives[name])

        for name, needed_by in _with_needs(asked, standing.services, sleeps):
            if needed_by and self._comes_up(name):
                continue
            rivals = sorted(standing.conflicts.get(name, ()))
            self.stop((rival for rival in rivals if rival in standing.lives), Cause.CONFLICT, name)
            self.down.pop(name, None)
            self.displaced.pop(name, None)
            if name in self._changed:
                self.up[name] = Up(True, Cause.DEFINITION, needed_by, sleeps=sleeps(name))
            else:
                own_cause = Cause.START if needed_by else cause
                self.up[name] = Up(renew and not needed_by, own_cause, needed_by, sleeps=sleeps(name))

    def _comes_up(self, name: str) -> bool:
        """Return whether a service is up or on its way, so that its dependents need no order for it."""
        if name in self.up:
            return True
        if name in self.down or name in self._standing.stopping:
            return False
        service, life = self._standing.services[name], self._standing.lives[name]
        return satisfies(service, life) or comes_up(life)


def _with_needs(
    asked: Collection[str], services: Mapping[str, Service], sleeps: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """Return the names and their dependencies, each after its own; with the dependent for names not requested."""
    order = needed(asked, services, sleeps)
    needed_by: dict[str, str] = {}
    for name in reversed(order):
        needed_by.update(dict.fromkeys(services[name].depends, name))
    return [(name, "" if name in asked else needed_by[name]) for name in order]


class Outcome(NamedTuple):
    """`message` is for people: why the outcome is not `ok`, or that there was nothing to do."""

    ok: bool
    message: str = ""


DONE = Outcome(True)
NO_PROCESS = Outcome(True, "it is asleep: its next process is a new one anyway")
ENDED_BEFORE = Outcome(True, "there was nothing to stop: it had ended before")


def started(service: Service, life: Life, units: Mapping[str, Member]) -> Outcome | None:
    """Return the outcome of a start: the service is up or, for a task, it has ended well."""
    if satisfies(service, life):
        return DONE
    match life.state:
        case State.BACKOFF | State.STOPPED | State.FAILED | State.DONE:
            return Outcome(False, life.reason)
        case State.WAITING:
            reason = waits_for_ever(service, units)
            return None if reason is None else Outcome(False, reason)
        case _:
            return None


def restarted(service: Service, life: Life, units: Mapping[str, Member], starts: int) -> Outcome | None:
    """Return the outcome of a restart: like `started`, but with a newer start than the `starts` before the order."""
    if life.starts == starts and satisfies(service, life):
        return NO_PROCESS if life.state is State.ASLEEP else None
    return started(service, life, units)


def slept(service: Service, life: Life, units: Mapping[str, Member]) -> Outcome | None:
    """Return the outcome of an order to sleep: the service is asleep. It may also have been started meanwhile."""
    if life.state is State.ASLEEP:
        return DONE
    if lies_down(life):
        reason = waits_for_ever(service, units) if life.state is State.WAITING else None
        return None if reason is None else Outcome(False, reason)
    if life.state in (State.STOPPED, State.FAILED, State.BACKOFF):
        return Outcome(False, life.reason)
    return Outcome(False, "it was started meanwhile") if life.cause is not Cause.CLIENT else DONE


def stopped(life: Life, was_going_down: bool) -> Outcome | None:
    """Return the outcome of a stop: the service is at rest. `was_going_down`: `goes_down` has held since the order.

    A stop may also have failed at once, so that nobody has seen the service go down.
    """
    if life.state is State.FAILED and (was_going_down or not is_down(life)):
        return Outcome(False, life.reason)
    if life.state in AT_REST:
        return DONE if was_going_down or life.state is State.STOPPED else ENDED_BEFORE
    if was_going_down and not goes_down(life):
        return Outcome(False, "it was started again meanwhile")
    return None
