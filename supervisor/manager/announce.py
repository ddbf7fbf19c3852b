"""What the log says when a service changes its state."""

from __future__ import annotations

from supervisor.lifecycle.life import State
from supervisor.lifecycle.span import span
from supervisor.log.logger import log, notice
from supervisor.manager.unit import Unit


def announce(unit: Unit) -> None:
    """Log the state that the unit has just entered, once for each change."""
    name, life = unit.name, unit.life
    match life.state:
        case State.STARTING:
            log.info("Starting %s", name)
        case State.RUNNING:
            log.info("%s: %s%s", name, life.reason, "" if unit.pid is None else f", pid {unit.pid}")
        case State.BACKOFF:
            wait = (life.deadline or life.since) - life.since
            log.warning("%s: %s; failure %d, next start in %s", name, life.reason, life.failures, span(wait))
        case State.FAILED:
            log.error("%s: failed: %s", name, life.reason)
        case State.WAITING if life.restarts:
            notice("%s: %s; starting it again", name, life.reason)
        case State.WAITING:
            log.debug("%s: %s", name, life.reason)
        case State.STOPPING:
            log.info("%s: stopping: %s", name, life.reason)
        case State.STOPPED | State.DONE | State.RELOADING:
            log.info("%s: %s: %s", name, life.state.value, life.reason)
