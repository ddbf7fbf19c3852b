"""Lines about services: for the log when one changes its state, and one that sums up all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from supervisor.lifecycle.cause import ENDLESS, endless, output_hint
from supervisor.lifecycle.life import UP, State, span
from supervisor.log.logger import log, notice
from supervisor.manager.unit import Unit
from supervisor.plural import count

NAMES = 5  # so many are named, the others counted
COUNTED = (State.STARTING, State.WAITING, State.STOPPING, State.DONE, State.STOPPED)
NAMED = (State.FAILED, State.BACKOFF)


def announce(unit: Unit) -> None:
    """Log the state that the unit has just entered, once for each change."""
    name, life = unit.name, unit.life
    match life.state:
        case State.STARTING:
            log.log(_level(unit), "Starting %s", name)
        case State.RUNNING:
            log.log(_level(unit), "%s: %s", name, _running(unit))
        case State.BACKOFF:
            wait = (life.deadline or life.since) - life.since
            log.warning("%s: %s; failure %d, next start in %s", name, life.reason, life.failures, span(wait))
            if life.failures == 1:
                _tell_of_output(unit)
            if life.failures == ENDLESS and (question := endless(unit)):
                notice("%s: %s", name, question)
        case State.FAILED:
            log.error("%s: failed: %s", name, life.reason)
            _tell_of_output(unit)
        case State.WAITING if life.restarts and not life.failures:
            notice("%s: %s; starting it again", name, life.reason)
        case State.WAITING:
            log.debug("%s: %s", name, life.reason)
        case State.STOPPING:
            log.info("%s: stopping: %s", name, life.reason)
        case State.STOPPED | State.DONE | State.RELOADING:
            log.info("%s: %s: %s", name, life.state.value, life.reason)


def announce_health(unit: Unit) -> None:
    """Log that a unit runs after all which has failed before."""
    log.info("%s: %s", unit.name, _running(unit))


def _running(unit: Unit) -> str:
    return f"{unit.life.reason}{'' if unit.pid is None else f', pid {unit.pid}'}"


def _level(unit: Unit) -> int:
    """A retry has one line, that of its failure; whether it runs after all is told when it has been healthy."""
    return logging.DEBUG if unit.life.failures else logging.INFO


def _tell_of_output(unit: Unit) -> None:
    """With the first failure and the last one: whoever looks for its cause finds nothing of what the program said."""
    if hint := output_hint(unit):
        notice("%s: %s", unit.name, hint)


def summary(states: Iterable[tuple[str, State]]) -> str:
    """The line for services by name and state: who needs attention is named."""
    names: dict[State, list[str]] = {}
    for name, state in states:
        names.setdefault(state, []).append(name)
    total = sum(map(len, names.values()))
    up = sum(len(names.get(state, ())) for state in UP)
    text = f"{up} of {count(total, 'service')} running"
    for state in COUNTED:
        if state in names:
            text += f", {len(names[state])} {state}"
    for state in NAMED:
        if state in names:
            text += f"; {state}: {_some(names[state])}"
    return text


def _some(names: list[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")
