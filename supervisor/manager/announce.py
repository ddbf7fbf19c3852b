"""Log lines about services: one for each change of state, and a summary of all services."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from supervisor.lifecycle.cause import ENDLESS, endless, output_hint
from supervisor.lifecycle.life import UP, State, span
from supervisor.log.logger import log, notice
from supervisor.manager.unit import Unit
from supervisor.printable import count

NAMES = 5  # names in one list; the others are only counted
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
    """Log that a unit runs after all, after failures."""
    log.info("%s: %s", unit.name, _running(unit))


def _running(unit: Unit) -> str:
    return f"{unit.life.reason}{'' if unit.pid is None else f', pid {unit.pid}'}"


def _level(unit: Unit) -> int:
    """Return the log level: a retry logs its failure only, and its success once it has been healthy for a while."""
    return logging.DEBUG if unit.life.failures else logging.INFO


def _tell_of_output(unit: Unit) -> None:
    """Point to the output of the program at the first failure and the last one."""
    if hint := output_hint(unit):
        notice("%s: %s", unit.name, hint)


def summary(states: Iterable[tuple[str, State]]) -> str:
    """Return the line that sums up services by name and state; services that need attention are named."""
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
