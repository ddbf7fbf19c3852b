"""Outcome of an order to a service, once it is decided.

Each function returns None before that.  It looks at a life after the order has been given: a service that was at rest
is at least `waiting` after a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import Member, satisfies, waits_for_ever
from supervisor.lifecycle.life import AT_REST, Life, State, goes_down


@dataclass(frozen=True, slots=True)
class Outcome:
    """`message` says why the outcome is not `ok`, or that nothing had to be done, for people to read."""

    ok: bool
    message: str = ""


DONE = Outcome(True)
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
    """Return the outcome of a restart: as `started`, with a start newer than the `starts` before the order."""
    if life.starts == starts and satisfies(service, life):
        return None
    return started(service, life, units)


def stopped(life: Life, was_going_down: bool) -> Outcome | None:
    """Return the outcome of a stop: the service is at rest.  `was_going_down`: `goes_down` has held since the order."""
    if life.state is State.FAILED and was_going_down:
        return Outcome(False, life.reason)
    if life.state in AT_REST:
        return DONE if was_going_down or life.state is State.STOPPED else ENDED_BEFORE
    if was_going_down and not goes_down(life):
        return Outcome(False, "somebody started it again")
    return None
