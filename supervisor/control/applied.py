"""The results of a plan under way: waits until each service has reached its planned state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from supervisor.control.core import Core, Unit
from supervisor.control.orders import GONE, Wait, result
from supervisor.control.rows import reason
from supervisor.lifecycle.life import goes_down
from supervisor.lifecycle.outcome import DONE, Outcome, restarted, started, stopped
from supervisor.lifecycle.plan import Effect, Plan
from supervisor.varlink.pending_call import PendingCall

Step = dict[str, Any]
Row = dict[str, object]
ASKED = Outcome(True, "asked to reload")


def steps_of(plan: Plan) -> list[Step]:
    """Return what a result needs to know of each service, as plain data."""
    return [
        {
            "name": entry.name,
            "step": entry.effect.value,
            "reason": entry.reason,
            "starts": entry.starts,
            "stays": entry.new is not None,
            "reloads": entry.reloads,
        }
        for entry in plan.services.values()
    ]


class Applied:
    """`finish` is given a row for each of the steps.  Ends with the call."""

    def __init__(
        self, pending: PendingCall, core: Core, steps: list[Step], finish: Callable[[list[Row]], None]
    ) -> None:
        self._pending = pending
        self._core = core
        self._steps = {str(step["name"]): step for step in steps}
        self._finish = finish
        self._going_down: set[str] = set()
        self._reloading = {name for name, step in self._steps.items() if step["reloads"]}
        self._reloaded: dict[str, Outcome] = {}
        self._wait: Wait | None = None

    def reload(self) -> None:
        """Ask the services to reload whose step is a reload."""
        for name in list(self._reloading):
            self._core.side_calls.reload(name, partial(self._reload_ended, name))

    def tell(self) -> None:
        """Finish at once, with what is known so far."""
        self._core.writer.flush()
        self._rows([result(self._core, name, self._so_far(name)) for name in self._steps])

    def wait(self) -> None:
        """Finish when all have come to what was planned."""
        self._wait = Wait(self._pending, self._core, self._steps, self._judge, self._rows)

    def forget_reloads(self) -> None:
        """Count the reloads as asked for: an earlier process asked, and their results are lost."""
        self._reloaded = dict.fromkeys(self._reloading, ASKED)

    def _reload_ended(self, name: str, problem: str) -> None:
        self._reloaded[name] = Outcome(not problem, problem)
        if self._wait is not None:
            self._wait.look(name)

    def _rows(self, results: list[Row]) -> None:
        rows = []
        for row in results:
            step = self._steps[str(row["name"])]
            planned = {"name": row["name"], "step": step["step"], "reason": step["reason"]}
            rows.append(planned | {key: row[key] for key in ("ok", "state", "message")})
        self._finish(rows)

    def _so_far(self, name: str) -> Outcome:
        unit = self._core.manager.units.get(name)
        if (outcome := self._judge(name, unit)) is not None:
            return outcome
        if name in self._reloading:
            return ASKED
        return Outcome(True, reason(unit) if unit is not None else "")

    def _judge(self, name: str, unit: Unit | None) -> Outcome | None:
        step = self._steps[name]
        if unit is None:
            return GONE if step["stays"] else DONE
        if name in self._reloading:
            return self._reloaded.get(name)
        match step["step"]:
            case Effect.START:
                return started(unit.service, unit.life, self._core.manager.units)
            case Effect.RESTART | Effect.REBUILD:
                return restarted(unit.service, unit.life, self._core.manager.units, step["starts"])
            case Effect.STOP:
                if goes_down(unit.life):
                    self._going_down.add(name)
                return stopped(unit.life, name in self._going_down)
            case _:
                return DONE
