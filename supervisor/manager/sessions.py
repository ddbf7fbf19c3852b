"""Sessions of a service whose acceptor is not there: spawnd ends those that are older than `session_timeout`.

There are such sessions while a service is asleep by an order, stopped without them, or cannot start its next acceptor.
They get the stop signal, and KILL after `stop_timeout`. The acceptor does the same for as long as it runs, and the next
one begins with the stop signal again.
"""

from __future__ import annotations

import math
from functools import partial

from supervisor.lifecycle.life import UP, State
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager.kin import living_sessions
from supervisor.manager.unit import SessionLimit, Unit
from supervisor.printable import count
from supervisor.process.children import signal_name
from supervisor.process.leftovers import family, kill_processes
from supervisor.process.pids import TICK, clock_ticks, look_at_all, signal_processes

REST = 20  # a look at all processes is followed by a pause of as many times its duration
LEAST, LONGEST = 1.0, 3600.0  # seconds between two looks; a suspended machine makes timers late


def limit_sessions(loop: Loop, unit: Unit) -> None:
    """Begin or end the enforcement of `session_timeout`, depending on the state and the definition of a unit."""
    limit, accept = unit.session_limit, unit.service.accept
    if accept is None or not _is_enforced(unit):
        unit.session_limit = None
        if limit is not None and limit.timer is not None:
            limit.timer.cancel()
    elif limit is None or limit.accept is not accept:
        unit.session_limit = SessionLimit(accept) if limit is None else SessionLimit(accept, limit.timer, limit.told)
        _plan(loop, unit, unit.session_limit, 0.0)


def _is_enforced(unit: Unit) -> bool:
    accept = unit.service.accept
    is_limited = accept is not None and accept.session_timeout is not None and unit.session_table is not None
    return is_limited and unit.life.state not in (*UP, State.STOPPING)


def _plan(loop: Loop, unit: Unit, limit: SessionLimit, wait: float) -> None:
    if limit.timer is not None:
        limit.timer.cancel()
    limit.timer = loop.call_later(min(wait, LONGEST), partial(_look, loop, unit, limit))


def _look(loop: Loop, unit: Unit, limit: SessionLimit) -> None:
    """Signal the sessions that are due, and plan the next look if there are any others."""
    limit.timer = None
    if unit.session_limit is not limit or not _is_enforced(unit):
        return
    begun = loop.clock()
    try:
        due = _times(unit, limit)
        now = clock_ticks() * TICK / 1e9
        if any(at <= now for at in due.values()):
            due = _end_old(unit, limit, due, now)
    except OSError as error:
        log.warning("%s: cannot look at its sessions: %s", unit.name, error.strerror)
        due = {0: now + LEAST}
    wait = min(due.values(), default=math.inf) - now
    if wait < math.inf:
        _plan(loop, unit, limit, max(wait, LEAST, REST * (loop.clock() - begun)))


def _times(unit: Unit, limit: SessionLimit) -> dict[int, float]:
    """Return when each session of the table gets its next signal, in seconds since the boot. Raises OSError."""
    from supervisor.launch.session_table import read_sessions  # most hosts have no acceptor

    longest = limit.accept.session_timeout
    if unit.session_table is None or longest is None:
        return {}
    sessions = read_sessions(unit.session_table)
    return {each.pid: limit.told.get(each.pid, each.earliest * TICK / 1e9 + longest) for each in sessions}


def _end_old(unit: Unit, limit: SessionLimit, due: dict[int, float], now: float) -> dict[int, float]:
    """Signal the sessions that are due; return the next times of those that live. Raises OSError."""
    living = living_sessions(unit)
    old = {pid: living[pid] for pid, at in due.items() if at <= now and pid in living}
    killed = {pid: started for pid, started in old.items() if pid in limit.told}
    told = {pid: started for pid, started in old.items() if pid not in limit.told}
    service = unit.service
    if told:
        signal_processes(family(told, look_at_all()), service.stop_signal)
        limit.told |= dict.fromkeys(told, math.inf if service.stop_timeout is None else now + service.stop_timeout)
        _tell(unit, len(told), signal_name(service.stop_signal))
    if killed:
        kill_processes(killed)
        limit.told |= dict.fromkeys(killed, math.inf)
        _tell(unit, len(killed), "KILL")
    return {pid: limit.told.get(pid, at) for pid, at in due.items() if pid in living}


def _tell(unit: Unit, number: int, signal: str) -> None:
    log.info("%s: %s older than session_timeout: sent %s", unit.name, count(number, "session"), signal)
