"""The services that a call names, orders for them, the wait for outcomes, and rows about services for replies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from supervisor.control.core import Core, Unit
from supervisor.control.errors import InvalidParameter, NoSuchService
from supervisor.definitions.problems import nearest
from supervisor.errors import StepError
from supervisor.lifecycle.cause import output_hint
from supervisor.lifecycle.life import AT_REST, Idleness, State
from supervisor.lifecycle.transaction import Outcome
from supervisor.lifecycle.wording import NOT_GONE
from supervisor.log.logger import log
from supervisor.printable import count
from supervisor.process.failure import read_failure
from supervisor.process.pids import Process, read_processes
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from supervisor.launch.session_table import Counters, Session

Judge = Callable[[Unit], Outcome | None]  # the outcome of an order for a unit; None: not decided yet
JudgeNamed = Callable[[str, Unit | None], Outcome | None]  # the unit is None if it is gone
Finish = Callable[[list[dict[str, object]]], None]  # gets the results in the order of the names

ALL = "all"
MAX_PATTERNS = 64  # each is compared with every service in one turn of the loop
MAX_PATTERN = 256  # characters; longer than any name
NAMED = 8  # services named in a log line
GONE = Outcome(False, "it is not defined any more")


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
        **_idleness(unit, now),
        "internal": unit.internal,
        "trouble": "" if (found := trouble(unit)) is None else str(found),
    }


def _idleness(unit: Unit, now: float) -> dict[str, object]:
    """Return since when nobody has used a service with `idle_stop`, or what it is used for, by the last look."""
    idle = unit.idle or Idleness()
    return {
        "idle_s": None if idle.since is None else seconds(now - idle.since),
        "busy": idle.busy,
        "next_look_s": None if idle.due is None else seconds(idle.due - now),
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
        "flushed": unit.flushed,
        "failures": life.failures,
        "start_limit": service.start_limit,
        "next_start_s": seconds((life.deadline or now) - now) if waits_for_retry else None,
        "waits": unit.waits,
        "depends": list(service.depends),
        "after": list(service.after),
        "descriptors": len(unit.descriptors()),
        "demand": service.demand,
        "accept": service.accept is not None,
        "has_process": service.has_process,
        "ready": service.ready,
        "restart": service.restart,
        "task": service.task,
        "functions": list(service.functions),
        "starts": life.starts,
        **_sessions(unit),
    }


def _sessions(unit: Unit) -> dict[str, object]:
    """Return the facts about sessions, and about clients without one, that the table of the acceptors has."""
    if unit.session_table is None:
        return dict.fromkeys(("sessions", "accepted", "limit", "refused", "last_refusal", "last_unserved"))
    counters, last = _counters(unit.session_table), trouble(unit, is_over=True)
    refusal = counters.refusal
    return {
        "sessions": counters.sessions if unit.pid is not None else _count_sessions(unit),
        "accepted": counters.accepted,
        "limit": limit(unit),
        "refused": {rule: count for rule, count in counters.refused.items() if count},
        "last_refusal": refusal and {"at": iso_8601(refusal.time), "peer": str(refusal.peer), "rule": refusal.rule},
        "last_unserved": last
        and {
            "at": iso_8601(last.at),
            "step": last.error.step,
            "path": last.error.path,
            "errno": last.error.errno,
            "text": str(last.error),
            "failures": last.failures,
        },
    }


def limit(unit: Unit) -> dict[str, str] | None:
    """Return the rule for all clients that lets none in at present, and its effect on them; None without one."""
    accept = unit.service.accept
    if accept is None or unit.session_table is None or unit.pid is None:
        return None
    rule = _counters(unit.session_table).limit
    return {"rule": rule, "effect": accept.on_limit} if rule else None


def sessions_of(unit: Unit) -> list[Session]:
    """Return the sessions in the table of its acceptors, some of which may have ended. Raises OSError."""
    if unit.session_table is None:
        return []
    from supervisor.launch.session_table import read_sessions  # most hosts have no acceptor

    return list(read_sessions(unit.session_table))


def leaders(processes: Iterable[Process], sessions: Mapping[int, Session]) -> list[Process]:
    """Return those of the processes that are the first ones of these sessions, by pid, and live."""
    return [
        process
        for process in processes
        if process.pid in sessions and process.state not in "ZX" and sessions[process.pid].is_process(process.started)
    ]


def _count_sessions(unit: Unit) -> int:
    """Return the number of sessions of a service whose acceptor, which counts them, is not there."""
    sessions = {session.pid: session for session in sessions_of(unit)}
    return len(leaders(read_processes(sessions), sessions))


class Trouble(NamedTuple):
    """Why clients get no session: the step that failed last, when, and how many clients such failures have cost."""

    error: StepError
    at: float
    failures: int

    def __str__(self) -> str:
        return str(self.error) if self.failures == 1 else f"{self.error}, {self.failures} times"


def trouble(unit: Unit, is_over: bool = False) -> Trouble | None:
    """Return why clients of a service get no session, or have got none: the last one, if `is_over` is of interest."""
    if unit.service.accept is None or unit.session_table is None:
        return None
    counters = _counters(unit.session_table)
    found = counters.trouble
    if found is None or not (is_over or found.time > counters.last_start):
        return None
    error = read_failure(found.report) or StepError("start a session", "", found.number, os.strerror(found.number))
    return Trouble(error, found.time, found.failures)


def _counters(table: int) -> Counters:
    from supervisor.launch.session_table import read_counters  # most hosts have no acceptor

    return read_counters(table)


def reason(unit: Unit) -> str:
    """Return the reason for its state, with what else an operator has to know, such as unreachable sockets."""
    held = NOT_GONE if unit.life.state is State.STOPPING and unit.life.killed else ""
    return unit.waits or "; ".join(filter(None, (unit.life.reason, held, unit.stale, output_hint(unit))))


def iso_8601(unix_time: float) -> str:
    """Return a Unix time in UTC, with milliseconds."""
    whole, thousandths = divmod(round(unix_time * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03d}+00:00"


def seconds(value: float) -> float:
    return round(max(0.0, value), 3)


# names


def resolve(wanted: Iterable[str], units: Mapping[str, Unit]) -> list[str]:
    """Return the names of the selected services, each once, in the given order; of a pattern in order of definition.

    A built-in service is selected only by its exact name. Raises NoSuchService for the first name without a match.
    """
    found: dict[str, None] = {}
    patterns = 0
    for name in wanted:
        if name in units:
            found[name] = None
            continue
        if name != ALL:
            patterns += 1
            if patterns > MAX_PATTERNS:
                raise InvalidParameter("names")
        matching = _matching(name, units)
        if not matching and name != ALL:
            raise _unknown(name, units)
        found.update(dict.fromkeys(matching))
    return list(found)


def find(name: str, units: Mapping[str, Unit]) -> Unit:
    """Return the service with exactly this name. Raises NoSuchService."""
    unit = units.get(name)
    if unit is None:
        raise _unknown(name, units)
    return unit


def _unknown(name: str, units: Mapping[str, Unit]) -> NoSuchService:
    """Return the error for a name without a match; for a pattern without a suggestion."""
    near = [] if _is_pattern(name) else nearest(name, units)
    return NoSuchService(name, near[0] if near else None)


def _matching(pattern: str, units: Mapping[str, Unit]) -> list[str]:
    if not _is_pattern(pattern):
        return []
    return [name for name, unit in units.items() if _matches(pattern, unit)]


def _is_pattern(name: str) -> bool:
    return name == ALL or (len(name) <= MAX_PATTERN and not set("*?[").isdisjoint(name))


def _matches(pattern: str, unit: Unit) -> bool:
    return not unit.internal and (pattern == ALL or fnmatchcase(unit.name, pattern))


class Wanted:
    """The services that a lasting request selects, including those that are defined later. No names select all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._patterns = [name for name in names if _is_pattern(name)][:MAX_PATTERNS] if names else [ALL]

    def __contains__(self, unit: Unit) -> bool:
        return unit.name in self._names or any(_matches(pattern, unit) for pattern in self._patterns)


# orders


class Order(NamedTuple):
    """An order in a call. `names` has at least one name, and all of them exist.

    `literal` has the names and patterns that the caller wrote.
    """

    names: list[str]
    waits: bool
    literal: frozenset[str]


def take_order(
    pending: PendingCall, core: Core, parameters: Parameters, may_wait: bool = True, detail: str = ""
) -> Order:
    """Return the order in a call, and log it with its caller; `parameters` has nothing else left.

    A caller that expects no reply does not wait. `detail` follows the verb in the log. Raises ControlError.
    """
    wanted = parameters.strings("names")
    waits = may_wait and not parameters.boolean("no_wait") and not pending.call.oneway
    parameters.end()
    if not wanted:
        raise InvalidParameter("names")
    names = resolve(wanted, core.manager.units)
    pending.once(lambda: log_order(pending, names, detail))
    return Order(names, waits, frozenset(wanted))


def log_order(pending: PendingCall, names: Sequence[str], detail: str = "") -> None:
    """Log which client gives which order."""
    verb = " ".join(filter(None, (pending.call.method.rpartition(".")[2].lower(), detail)))
    more = f" and {count(len(names) - NAMED, 'other')}" if len(names) > NAMED else ""
    log.info("%s of %s%s: asked for by %s", verb, ", ".join(names[:NAMED]), more, pending.client.describe())


def reply_results(pending: PendingCall, core: Core, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    core.writer.flush()
    pending.reply({"results": [result(core, name, outcome) for name, outcome in outcomes]})


def result(core: Core, name: str, outcome: Outcome) -> dict[str, object]:
    """Return the result for one service, with its present state."""
    unit = core.manager.units.get(name)
    state = State.STOPPED if unit is None else unit.life.state
    failed_itself = unit is not None and not outcome.ok and outcome.message == unit.life.reason
    message = reason(unit) if unit is not None and failed_itself else outcome.message
    return {"name": name, "ok": outcome.ok, "state": state.value, "message": message}


def so_far(unit: Unit, judge: Judge) -> Outcome:
    """Return the outcome for a caller that does not wait: undecided counts as done, with the reason as its message."""
    return judge(unit) or Outcome(True, reason(unit))


# the wait


def answer(pending: PendingCall, core: Core, order: Order, judge: Judge) -> None:
    """Answer an order that the core has received: once its outcome is decided, or now if the caller does not wait."""
    if order.waits:
        Wait(
            pending,
            core,
            order.names,
            lambda _name, unit: GONE if unit is None else judge(unit),
            lambda results: pending.reply({"results": results}),
        )
    else:
        reply_results(pending, core, [(name, so_far(core.manager.units[name], judge)) for name in order.names])


class Wait:
    """Calls `finish` once, when the outcome of every service is decided.

    Ends with the call, by its answer or by a disconnect of the caller. A service is judged again whenever its
    own state changes. When another service comes to rest, which may leave them waiting for ever, all services
    are judged again, once per round of the loop.
    """

    def __init__(
        self, pending: PendingCall, core: Core, names: Iterable[str], judge: JudgeNamed, finish: Finish
    ) -> None:
        self._pending = pending
        self._core = core
        self._judge = judge
        self._finish = finish
        self._results: dict[str, dict[str, object]] = {name: {} for name in names}
        self._awaited = set(self._results)
        self._planned = False
        pending.on_end(core.manager.observe(self._changed))
        self._judge_all()

    def look(self, name: str) -> None:
        """Judge a service again for a reason other than a change of its state."""
        if name in self._awaited and not self._pending.ended:
            self._judge_one(name, self._core.manager.units.get(name))
            self._finish_if_complete()

    def _changed(self, unit: Unit) -> None:
        if unit.name in self._awaited:
            self._judge_one(unit.name, unit)
            self._finish_if_complete()
        if unit.life.state in AT_REST and self._awaited and not self._planned:
            self._planned = True
            self._pending.loop.call_soon(self._judge_all)

    def _judge_all(self) -> None:
        self._planned = False
        if self._pending.ended:
            return
        for name in list(self._awaited):
            self._judge_one(name, self._core.manager.units.get(name))
        self._finish_if_complete()

    def _judge_one(self, name: str, unit: Unit | None) -> None:
        outcome = self._judge(name, unit)
        if outcome is not None:
            self._awaited.discard(name)
            self._results[name] = result(self._core, name, outcome)

    def _finish_if_complete(self) -> None:
        if not self._awaited and not self._pending.ended:
            self._core.writer.flush()
            self._finish(list(self._results.values()))
