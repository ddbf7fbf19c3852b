"""Rows about a service: plain values, as in the interface description."""

from __future__ import annotations

import time

from supervisor.control.core import Core, Unit
from supervisor.lifecycle.cause import output_hint
from supervisor.lifecycle.life import State
from supervisor.lifecycle.wording import NOT_GONE


def summary(unit: Unit, core: Core, now: float) -> dict[str, object]:
    """Return a row of the list. `now` is a time of the loop's clock."""
    life = unit.life
    memory, cpu = unit.usage()
    return {
        "name": unit.name,
        "state": life.state.value,
        "pid": unit.pid,
        "since": iso_8601(core.manager.unix_time(life.since)),
        "state_s": seconds(now - life.since),
        "restarts": life.restarts,
        "uptime_s": None if life.up_since is None else seconds(now - life.up_since),
        "memory_bytes": memory,
        "cpu_s": cpu,
        "description": unit.service.description,
        "reason": reason(unit),
        "status_text": unit.status_text,
        "internal": unit.internal,
    }


def details(unit: Unit, core: Core, now: float) -> dict[str, object]:
    """Return all facts about a service."""
    service, life = unit.service, unit.life
    lost = f"its control socket was removed: `spawnctl restart {unit.name}` makes it again"
    waits_for_retry = life.state is State.BACKOFF and life.deadline is not None
    return summary(unit, core, now) | {
        "reason": "; ".join(filter(None, (reason(unit), lost if unit.lacks_control_socket else ""))),
        "file": service.file,
        "line": service.line,
        "last_exit": unit.last_exit,
        "last_call": unit.last_call,
        "disconnected": unit.disconnected,
        "failures": life.failures,
        "start_limit": service.start_limit,
        "next_start_s": seconds((life.deadline or now) - now) if waits_for_retry else None,
        "waits": unit.waits,
        "depends": list(service.depends),
        "after": list(service.after),
        "descriptors": len(unit.descriptors()),
        "has_process": service.has_process,
        "ready": service.ready,
        "restart": service.restart,
        "task": service.task,
        "functions": list(service.functions),
        "starts": life.starts,
    }


def reason(unit: Unit) -> str:
    """Return the reason for its state, with what else an operator has to know: held processes, lost output."""
    held = NOT_GONE if unit.life.state is State.STOPPING and unit.life.killed else ""
    return unit.waits or "; ".join(filter(None, (unit.life.reason, held, output_hint(unit))))


def iso_8601(unix_time: float) -> str:
    """Return a Unix time in UTC, with milliseconds."""
    whole, thousandths = divmod(round(unix_time * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03d}+00:00"


def seconds(value: float) -> float:
    return round(max(0.0, value), 3)
