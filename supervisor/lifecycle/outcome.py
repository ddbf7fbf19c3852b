"""When an order to a service is carried out, and how it came out.

Each function returns None while it is not decided yet.  They look at a life after the
order has been given: one that was at rest is at least `waiting` after a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import Member, satisfies, waits_for_ever
from supervisor.lifecycle.life import AT_REST, Life, State
from supervisor.lifecycle.outlook import goes_down


@dataclass(frozen=True, slots=True)
class Outcome:
    """`message` says why it is not `ok`, for people to read."""

    ok: bool
    message: str = ""


DONE = Outcome(True)


def started(service: Service, life: Life, units: Mapping[str, Member]) -> Outcome | None:
    """Of a start: it is up or, for a task, it has ended well."""
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
    """Of a restart: as `started`, with a start newer than the `starts` that there were before the order."""
    if life.starts == starts and satisfies(service, life):
        return None
    return started(service, life, units)


def stopped(life: Life, was_going_down: bool) -> Outcome | None:
    """Of a stop: it is at rest.  `was_going_down`: `goes_down` held at some time since the order."""
    if life.state is State.FAILED and was_going_down:
        return Outcome(False, life.reason)
    if life.state in AT_REST:
        return DONE
    if was_going_down and not goes_down(life):
        return Outcome(False, "somebody started it again")
    return None
