"""Why: the reason why a service is not running, followed to its root."""

from __future__ import annotations

import time

from supervisor.control.core import Core, Unit
from supervisor.control.errors import NoLog
from supervisor.control.orders import find, iso_8601, limit, seconds, trouble
from supervisor.control.output import read, reply_of
from supervisor.lifecycle.cause import Kind, Link, Output, chain, hint, last_restart, place
from supervisor.lifecycle.dependencies import conflicts
from supervisor.lifecycle.life import Ended, State
from supervisor.lifecycle.wording import answer, describe
from supervisor.log.ring import START
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

LINES = 5
# reasons that include the end of the last process, or a start without a process
WITH_END = frozenset({
    Kind.DONE, Kind.ENDED, Kind.EXIT, Kind.SIGNAL, Kind.OUT_OF_MEMORY, Kind.SETUP, Kind.ADDRESS,
    Kind.CHECK, Kind.NOT_READY, Kind.WATCHDOG,
})  # fmt: skip


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    name = parameters.string("name")
    parameters.end()
    units = core.manager.units
    find(name, units)
    links = chain(name, units, conflicts({name: unit.service for name, unit in units.items()}))
    root = links[-1]
    now = pending.loop.clock()
    restart = last_restart(root.subject) if root.kind is Kind.RUNNING and root.subject is not None else None
    since = _local_time(core, root.subject.life.since) if root.subject is not None else ""
    unserved = _unserved(root, units.get(root.name))
    pending.reply(
        {
            "name": name,
            "kind": root.kind.value,
            "root": root.name,
            "answer": _and_more(answer(links, now, since), unserved, units.get(root.name)),
            "hint": hint(root, _output(core, root)) if unserved is None else place(units[root.name].service, unserved),
            "last_restart": None if restart is None else restart.value,
            "chain": [_cause(link, units.get(link.name), core, now) for link in links],
            **_last_words(core, root, units.get(root.name)),
        }
    )


def _local_time(core: Core, monotonic: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(core.manager.unix_time(monotonic)))


def _unserved(link: Link, unit: Unit | None) -> Ended | None:
    """Return why the clients of a service get no session, although it is up; None if they do."""
    found = trouble(unit) if unit is not None and link.kind in (Kind.RUNNING, Kind.ASLEEP) else None
    if found is None:
        return None
    error = found.error
    return Ended.of_step(error.step, error.path, error.errno, str(found), error.line)


def _and_more(text: str, unserved: Ended | None, unit: Unit | None) -> str:
    """Return the text, with why clients get no session or have to wait for one."""
    told = "" if unserved is None else f"its last client got no session: {unserved.cause}"
    return "; ".join(filter(None, (text, told, "" if unit is None else _limit(unit))))


def _limit(unit: Unit) -> str:
    found = limit(unit)
    return f"clients {'wait' if found['effect'] == 'wait' else 'are refused'}: {found['rule']}" if found else ""


def _cause(link: Link, unit: Unit | None, core: Core, now: float) -> dict[str, object]:
    """Return a link of the chain, with the numbers in its text."""
    life, unserved = unit.life if unit is not None else None, _unserved(link, unit)
    ended = unserved or (unit.ended if unit is not None and _tells_end(link, unit) else None) or Ended()
    deadline = seconds(life.deadline - now) if life is not None and life.deadline is not None else None
    in_backoff = life is not None and life.state is State.BACKOFF
    return {
        "name": link.name,
        "kind": link.kind.value,
        "other": link.other or None,
        "text": _and_more(describe(link, now), unserved, unit),
        "state": life.state.value if life is not None else None,
        "since": iso_8601(core.manager.unix_time(life.since)) if life is not None else None,
        "state_s": seconds(now - life.since) if life is not None else None,
        "pid": unit.pid if unit is not None else None,
        "exit_status": ended.status,
        "signal": ended.signum,
        "step": ended.step or None,
        "path": ended.path or None,
        "errno": ended.errno or None,
        "failures": life.failures if life is not None else 0,
        "start_limit": unit.service.start_limit if unit is not None else None,
        "next_start_s": deadline if in_backoff else None,
        "left_s": None if in_backoff else deadline,
    }


def _tells_end(link: Link, unit: Unit) -> bool:
    match link.kind:
        case Kind.RUNNING:
            return unit.life.restarts > 0
        case Kind.ASLEEP:
            return unit.life.failures > 0
        case _:
            return link.kind in WITH_END


def _output(core: Core, root: Link) -> Output:
    """Return what is known of the service's output: spawnd does not read the journal."""
    try:
        piece = core.output(root.name, START) if root.subject is not None else None
    except LookupError:  # no `log()`
        return Output.NOTHING
    if piece is None:
        return Output.UNKNOWN
    return Output.SOMETHING if piece.data else Output.NOTHING


def _last_words(core: Core, root: Link, unit: Unit | None) -> dict[str, object]:
    """Return the last lines of the root's output or of its check; none if they are not kept."""
    if root.kind is Kind.CHECK and unit is not None and unit.check_output:
        return {"journal": False, "lines": list(unit.check_output[-LINES:])}
    try:
        reply = reply_of(read(core, root.name) if root.subject is not None else None, LINES)
    except NoLog:
        return {"journal": False, "lines": []}
    return {"journal": reply["journal"] and root.subject is not None, "lines": reply["lines"]}
