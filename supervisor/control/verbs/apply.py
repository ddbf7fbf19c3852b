"""Apply: change to the present definition files, and wait until the whole plan is carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from supervisor.control.core import Core, Unit
from supervisor.control.errors import OtherDefinitions
from supervisor.control.orders import GONE, Wait, log_order, reason, result
from supervisor.errors import DefinitionsError, OtherDefinitionsError, SpawnError
from supervisor.lifecycle.life import goes_down
from supervisor.lifecycle.plan import Effect, Plan
from supervisor.lifecycle.transaction import DONE, Outcome, restarted, slept, started, stopped
from supervisor.varlink.messages import Failed, Parameters
from supervisor.varlink.pending_call import PendingCall

Step = dict[str, Any]
Row = dict[str, object]
ASKED = Outcome(True, "asked to reload")

MEMO = "applied"

Reply = dict[str, object]


def steps_of(plan: Plan) -> list[Step]:
    """Return the facts about each service that a result needs, as plain data."""
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
    """The wait for the results; `finish` gets a row for each of the steps. Ends with the call."""

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
        """Ask the services whose step includes a reload to reload."""
        for name in list(self._reloading):
            self._core.side_calls.reload(name, partial(self._reload_ended, name))

    def tell(self) -> None:
        """Finish at once, with the results so far."""
        self._core.writer.flush()
        self._rows([result(self._core, name, self._so_far(name)) for name in self._steps])

    def wait(self) -> None:
        """Finish when all services have reached their planned states."""
        self._wait = Wait(self._pending, self._core, self._steps, self._judge, self._rows)

    def forget_reloads(self) -> None:
        """Count the reloads as requested: an earlier process requested them, and their results are lost."""
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
            case Effect.SLEEP:
                return slept(unit.service, unit.life, self._core.manager.units)
            case Effect.STOP:
                if goes_down(unit.life):
                    self._going_down.add(name)
                return stopped(unit.life, name in self._going_down)
            case _:
                return DONE


def run(pending: PendingCall, core: Core) -> None:
    # Only plans need this module. An import error here reaches the caller before anything is changed.
    from supervisor.control.planned import setting_rows

    parameters = Parameters(pending.call.parameters)
    expect = parameters.string("expect", "")
    reloads = parameters.boolean("reload")
    waits = not parameters.boolean("no_wait") and not pending.call.oneway
    parameters.end()

    def done(result: Plan | SpawnError) -> None:
        if isinstance(result, DefinitionsError):
            pending.reply(_reply(result.problems))
        elif isinstance(result, OtherDefinitionsError):
            pending.fail(OtherDefinitions(result.digest))
        elif isinstance(result, SpawnError):
            pending.fail(Failed(str(result)))
        else:
            pending.memo[MEMO] = _memo(result, setting_rows(result))
            _answer(pending, core, waits)

    if MEMO in pending.memo:
        _answer(pending, core, waits)
    else:
        pending.once(lambda: log_order(pending, ["the definitions"]))
        core.changes.apply(expect, reloads, done)


def _memo(plan: Plan, settings: Sequence[Reply]) -> Reply:
    """Return everything that the answer is made from, besides the state of the services."""
    definitions = plan.definitions
    reply = _reply((), plan.notices(), definitions.digest, settings)
    return {"reply": reply, "steps": steps_of(plan), "reloaded": False}


def _answer(pending: PendingCall, core: Core, waits: bool) -> None:
    """Answer from the memo, in the same way right after the change and after an exec of spawnd."""
    memo = pending.memo[MEMO]
    applied = Applied(pending, core, memo["steps"], partial(_finish, pending, memo["reply"]))
    if memo["reloaded"]:
        applied.forget_reloads()
    else:
        memo["reloaded"] = True
        applied.reload()
    applied.wait() if waits else applied.tell()


def _finish(pending: PendingCall, reply: Reply, rows: list[Reply]) -> None:
    pending.reply(reply | {"services": rows})


def _reply(
    problems: Sequence[str] = (), notices: Sequence[str] = (), digest: str = "", settings: Sequence[Reply] = ()
) -> Reply:
    return {
        "problems": list(problems),
        "notices": list(notices),
        "digest": digest,
        "services": [],
        "settings": list(settings),
    }
