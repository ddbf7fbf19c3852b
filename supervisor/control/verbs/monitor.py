"""Monitor: the states of services, and every change of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from supervisor.control.core import Core, Unit
from supervisor.control.orders import Wanted, iso_8601, reason, resolve
from supervisor.lifecycle.life import State
from supervisor.lifecycle.wording import idleness
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

MOST = 256  # changes in a reply, and changes queued for a slow reader before they are folded

Change = dict[str, Any]


class Monitor:
    """Reports changes until the call ends.

    It keeps the last reported state of each service; a difference from that is a change. For a slow caller, the queued
    changes are folded into one per service, so that there are never many more of them than services.
    """

    def __init__(self, pending: PendingCall, core: Core, wanted: Sequence[str], changes_only: bool) -> None:
        self._pending = pending
        self._core = core
        self._wanted = Wanted(wanted)
        self._planned = False
        self._fold_at = MOST
        pending.stream(self._send)
        pending.on_end(core.manager.observe(self._look))
        begins = not pending.memo
        memo = pending.memo
        self._told: dict[str, list[Any]] = memo.setdefault("told", {})  # state, since, obstacle, is it idle
        self._waiting: list[Change] = memo.setdefault("waiting", [])
        for name in list(self._told):
            if name not in core.manager.units:
                self._gone(name, "")
        for unit in core.manager.units.values():
            self._look(unit)
        if begins and changes_only:
            self._waiting.clear()
        self._send()

    def _look(self, unit: Unit) -> None:
        name = unit.name
        if self._core.manager.units.get(name) is not unit:
            if name in self._told and name not in self._core.manager.units:
                self._gone(name, unit.life.reason)
            return
        if unit not in self._wanted:
            return
        life = unit.life
        before, now = self._told.get(name), [life.state.value, life.since, unit.waits, _use(unit)]
        if before == now:
            return
        self._told[name] = now
        at = life.since if before is None or before[:2] != now[:2] else self._pending.loop.clock()
        why = "; ".join(filter(None, (reason(unit), idleness(unit.service, unit.idle, self._pending.loop.clock()))))
        self._add(name, at, before, life.state, why, unit.pid)

    def _gone(self, name: str, why: str) -> None:
        before = self._told.pop(name)
        self._add(name, self._pending.loop.clock(), before, None, why, None)

    def _add(
        self, name: str, at: float, before: list[Any] | None, state: State | None, why: str, pid: int | None
    ) -> None:
        self._waiting.append(
            {
                "at": iso_8601(self._core.manager.unix_time(at)),
                "name": name,
                "old": None if before is None else before[0],
                "state": None if state is None else state.value,
                "reason": why,
                "pid": pid,
                "skipped": 0,
            }
        )
        if len(self._waiting) > self._fold_at:
            self._waiting[:] = folded(self._waiting)
            self._fold_at = max(MOST, 2 * len(self._waiting))
        if self._pending.has_room and not self._planned:
            # changes of one round of the loop share a reply
            self._planned = True
            self._pending.loop.call_later(0, self._send)

    def _send(self) -> None:
        self._planned = False
        while self._waiting and self._pending.has_room:
            changes = self._waiting[:MOST]
            del self._waiting[:MOST]
            self._pending.reply_more({"changes": changes})


def _use(unit: Unit) -> bool | None:
    """Return whether a service with `idle_stop` is idle; None if that is unknown."""
    return None if unit.idle is None or not (unit.idle.busy or unit.idle.since) else not unit.idle.busy


def folded(changes: Sequence[Change]) -> list[Change]:
    """Return the last change of each service, with the number of changes folded into it, in order of these."""
    last: dict[str, Change] = {}
    for change in changes:
        name = change["name"]
        before = last.pop(name, None)
        if before is not None:
            change = change | {"old": before["old"], "skipped": before["skipped"] + change["skipped"] + 1}
        last[name] = change
    return list(last.values())


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("names", [])
    changes_only = parameters.boolean("changes_only")
    parameters.end()
    if not pending.memo:
        resolve(wanted, core.manager.units)  # an unknown name is an error now; later its service may be gone
    Monitor(pending, core, wanted, changes_only)
