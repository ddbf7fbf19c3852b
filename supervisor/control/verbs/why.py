"""Why: what it is that a service is not running for, followed to its root."""

from __future__ import annotations

import time

from supervisor.control.core import Core, Unit
from supervisor.control.errors import NoLog, NoSuchService
from supervisor.control.output import read, reply_of
from supervisor.control.rows import iso_8601, seconds
from supervisor.lifecycle.cause import Kind, Link, chain, last_restart
from supervisor.lifecycle.dependencies import conflicts
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.life import State
from supervisor.lifecycle.remedy import hint
from supervisor.lifecycle.wording import answer, describe
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters

LINES = 5
# of these the end of the last process, or of the start that came to none, is a part
WITH_END = frozenset({
    Kind.DONE, Kind.ENDED, Kind.EXIT, Kind.SIGNAL, Kind.OUT_OF_MEMORY, Kind.SETUP, Kind.ADDRESS,
    Kind.CHECK, Kind.NOT_READY, Kind.WATCHDOG,
})  # fmt: skip


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    name = parameters.string("name")
    parameters.end()
    if name not in core.units:
        raise NoSuchService(name)
    units = core.units
    links = chain(name, units, conflicts({name: unit.service for name, unit in units.items()}))
    root = links[-1]
    now = exchange.loop.clock()
    restart = last_restart(root.subject) if root.kind is Kind.RUNNING and root.subject is not None else None
    since = _local_time(core, root.subject.life.since) if root.subject is not None else ""
    exchange.reply(
        {
            "name": name,
            "kind": root.kind.value,
            "root": root.name,
            "answer": answer(links, now, since),
            "hint": hint(root),
            "last_restart": None if restart is None else restart.value,
            "chain": [_cause(link, units.get(link.name), core, now) for link in links],
            **_last_words(core, root),
        }
    )


def _local_time(core: Core, monotonic: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(core.wall(monotonic)))


def _cause(link: Link, unit: Unit | None, core: Core, now: float) -> dict[str, object]:
    """One link, with the numbers that its text is made of."""
    life = unit.life if unit is not None else None
    ended = (unit.ended if unit is not None and _tells_end(link, unit) else None) or Ended()
    deadline = seconds(life.deadline - now) if life is not None and life.deadline is not None else None
    in_backoff = life is not None and life.state is State.BACKOFF
    return {
        "name": link.name,
        "kind": link.kind.value,
        "other": link.other or None,
        "text": describe(link, now),
        "state": life.state.value if life is not None else None,
        "since": iso_8601(core.wall(life.since)) if life is not None else None,
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
    return link.kind in WITH_END or (link.kind is Kind.RUNNING and unit.life.restarts > 0)


def _last_words(core: Core, root: Link) -> dict[str, object]:
    """The last lines of the root's output, none where they are kept nowhere."""
    try:
        reply = reply_of(read(core, root.name) if root.subject is not None else None, LINES)
    except NoLog:
        return {"journal": False, "lines": []}
    return {"journal": reply["journal"] and root.subject is not None, "lines": reply["lines"]}
