"""What came of a plan that has been set off: waits for each service to come to what was planned for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from supervisor.control.core import Core, Unit
from supervisor.control.orders import GONE, result
from supervisor.control.rows import reason
from supervisor.control.wait import Wait
from supervisor.lifecycle.outcome import DONE, Outcome, restarted, started, stopped
from supervisor.lifecycle.outlook import goes_down
from supervisor.lifecycle.plan import Effect, Plan
from supervisor.varlink.exchange import Exchange

Step = dict[str, Any]
Row = dict[str, object]
ASKED = Outcome(True, "asked to reload")


def steps_of(plan: Plan) -> list[Step]:
    """What has to be known of each service to tell what came of it: plain data."""
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
    """`finish` is given a row for each of the steps.  Ends with the exchange."""

    def __init__(self, exchange: Exchange, core: Core, steps: list[Step], finish: Callable[[list[Row]], None]) -> None:
        self._exchange = exchange
        self._core = core
        self._steps = {str(step["name"]): step for step in steps}
        self._finish = finish
        self._going_down: set[str] = set()
        self._reloading = {name for name, step in self._steps.items() if step["reloads"]}
        self._reloaded: dict[str, Outcome] = {}
        self._wait: Wait | None = None

    def reload(self) -> None:
        """Ask those to reload that were planned to."""
        for name in list(self._reloading):
            self._core.reload(name, partial(self._reload_ended, name))

    def tell(self) -> None:
        """Finish at once, with what is known so far."""
        self._core.settle()
        self._rows([result(self._core, name, self._so_far(name)) for name in self._steps])

    def wait(self) -> None:
        """Finish when all have come to what was planned."""
        self._wait = Wait(self._exchange, self._core, self._steps, self._judge, self._rows)

    def forget_reloads(self) -> None:
        """They were asked for before, and nobody will hear how they came out."""
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
        unit = self._core.units.get(name)
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
                return started(unit.service, unit.life, self._core.units)
            case Effect.RESTART | Effect.REBUILD:
                return restarted(unit.service, unit.life, self._core.units, step["starts"])
            case Effect.STOP:
                if goes_down(unit.life):
                    self._going_down.add(name)
                return stopped(unit.life, name in self._going_down)
            case _:
                return DONE
