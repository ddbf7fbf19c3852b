"""Why a service is, or is not, running: from the service to the root of it, over what each one waits for.  Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import Hold, Obstacle, obstacle
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.life import Cause, Life, State, Then


class Kind(StrEnum):
    """What it is that a service is not running for, or running, or about to."""

    RUNNING = "running"
    DONE = "done"  # a task that ended well
    STARTING = "starting"  # it is about to run
    # another one is in the way: `other`
    DEPENDENCY = "dependency"
    ORDER = "order"
    CONFLICT = "conflict"  # stopped for it, or waits for it to have stopped
    ADDRESS = "address"  # also where none of ours has it
    # it is as somebody, or something, wants it
    NOT_STARTED = "not_started"
    STOPPED = "stopped"
    RESTART = "restart"
    RESTART_SIGNAL = "restart_signal"
    NAMESPACE = "namespace"
    RESET = "reset"
    DEFINITION = "definition"
    REMOVED = "removed"
    SHUTDOWN = "shutdown"
    ENDED = "ended"  # of itself, and is not to be started again
    UNDEFINED = "undefined"
    # it failed
    EXIT = "exit"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    SETUP = "setup"
    CHECK = "check"
    FUNCTION = "function"
    FUNCTION_LATE = "function_late"
    NOT_READY = "not_ready"
    WATCHDOG = "watchdog"


class Subject(Protocol):
    """A service with its life and what is known beyond that."""

    @property
    def service(self) -> Service: ...

    @property
    def life(self) -> Life: ...

    @property
    def ended(self) -> Ended | None: ...

    @property
    def obstacle(self) -> Obstacle | None: ...


@dataclass(frozen=True, slots=True)
class Link:
    """One service of the chain.  `subject` is None where it is not defined, `other` the service that it is about.

    Where `other` holds it back, the next link tells why that one does.
    """

    name: str
    kind: Kind
    subject: Subject | None
    other: str = ""


HOLDS = {
    Hold.DEPENDS: Kind.DEPENDENCY,
    Hold.AFTER: Kind.ORDER,
    Hold.CONFLICT: Kind.CONFLICT,
    Hold.ADDRESS: Kind.ADDRESS,
}
ORDERS = {
    Cause.NEW: Kind.NOT_STARTED,
    Cause.START: Kind.RESTART,  # of one that was stopping
    Cause.RESTART: Kind.RESTART,
    Cause.STOP: Kind.STOPPED,
    Cause.RESET: Kind.RESET,
    Cause.CONFLICT: Kind.CONFLICT,
    Cause.DEFINITION: Kind.DEFINITION,
    Cause.REMOVED: Kind.REMOVED,
    Cause.SIGNAL: Kind.RESTART_SIGNAL,
    Cause.NAMESPACE: Kind.NAMESPACE,
    Cause.SHUTDOWN: Kind.SHUTDOWN,
}
FAILURES = {
    Cause.CHECK: Kind.CHECK,
    Cause.CHECK_LATE: Kind.CHECK,
    Cause.FUNCTION: Kind.FUNCTION,
    Cause.FUNCTION_LATE: Kind.FUNCTION_LATE,
    Cause.NOT_READY: Kind.NOT_READY,
    Cause.WATCHDOG: Kind.WATCHDOG,
}


def chain(name: str, units: Mapping[str, Subject], conflicts: Mapping[str, Iterable[str]]) -> tuple[Link, ...]:
    """The service, what it waits for, what that one waits for, and so on; the last one is the root.

    `conflicts` has for each name those that it conflicts with.
    """
    links: list[Link] = []
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        subject = units.get(name)
        held = _obstacle(subject, units, conflicts.get(name, ())) if subject is not None else None
        if subject is None or held is None:
            links.append(link(name, subject))
            break
        links.append(Link(name, HOLDS[held.hold], subject, held.name))
        name = held.name
    return tuple(links)


def _obstacle(subject: Subject, units: Mapping[str, Subject], rivals: Iterable[str]) -> Obstacle | None:
    if subject.life.state is not State.WAITING:
        return None
    found = obstacle(subject.service, units, sorted(rivals))
    # an address is nothing that lives tell of: it was found when the service was to start
    by_address = subject.obstacle is not None and subject.obstacle.hold is Hold.ADDRESS
    return subject.obstacle if found is None and by_address else found


def link(name: str, subject: Subject | None) -> Link:
    """A service that nothing holds back."""
    if subject is None:
        return Link(name, Kind.UNDEFINED, None)
    return Link(name, _kind(subject), subject, subject.life.other)


def _kind(subject: Subject) -> Kind:
    life = subject.life
    match life.state:
        case State.RUNNING | State.RELOADING:
            return Kind.RUNNING
        case State.WAITING | State.STARTING:
            return Kind.STARTING
        case State.DONE:
            return Kind.DONE
        case State.STOPPED:
            return ORDERS.get(life.cause, Kind.ENDED)
        case State.STOPPING if life.then not in (Then.FAIL, Then.END):
            return ORDERS.get(life.cause, Kind.STOPPED)
        case State.STOPPING | State.BACKOFF | State.FAILED:
            return failure(subject)


def failure(subject: Subject) -> Kind:
    """In which way it failed the last time."""
    ended = subject.ended
    if subject.life.cause in FAILURES:
        return FAILURES[subject.life.cause]
    if ended is None:
        return Kind.EXIT
    if ended.step:
        return Kind.ADDRESS if ended.errno == errno.EADDRINUSE else Kind.SETUP
    if ended.out_of_memory:
        return Kind.OUT_OF_MEMORY
    return Kind.SIGNAL if ended.signum is not None else Kind.EXIT


def last_restart(subject: Subject) -> Kind | None:
    """What the last restart of one that is up was for; None: it was started, and has not been restarted since."""
    cause = subject.life.cause
    if cause in (Cause.RESTART, Cause.DEFINITION, Cause.SIGNAL, Cause.NAMESPACE):
        return ORDERS[cause]
    return failure(subject) if subject.life.restarts else None
