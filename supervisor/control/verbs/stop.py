"""Stop: stop services; running dependents are stopped with them, or keep them from being stopped."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from supervisor.control.core import Core, Unit
from supervisor.control.errors import Needed
from supervisor.control.orders import Order, answer, take_order
from supervisor.lifecycle.dependencies import in_need, needed
from supervisor.lifecycle.life import AT_REST, RUNS, Life, State, Then, goes_down
from supervisor.lifecycle.transaction import Outcome, stopped
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    cascade, alone = parameters.boolean("cascade"), parameters.boolean("alone")
    keeps = parameters.boolean("keep_sessions")
    order = take_order(pending, core, parameters, detail="without its sessions" if keeps else "")
    if not alone:
        order = _with_others(pending, core, order, cascade)
    going_down: dict[str, bool] = pending.memo.setdefault("going_down", {})

    def judge(unit: Unit) -> Outcome | None:
        if goes_down(unit.life):
            going_down[unit.name] = True
        elif unit.life.state in AT_REST and core.manager.is_to_stop(unit.name):
            return None  # its last stop has failed, and the next one waits for dependents
        return stopped(unit.life, unit.name in going_down)

    pending.once(lambda: core.manager.stop(order.names, keeps_sessions=keeps))
    answer(pending, core, order, judge)


def _with_others(pending: PendingCall, core: Core, order: Order, cascade: bool) -> Order:
    """Return the order with all services that are to stop, decided once, when the order comes. Raises Needed."""
    if "others" not in pending.memo:
        lives = {name: unit.life for name, unit in core.manager.units.items()}
        others = in_need(order.names, core.manager.services(), lives)
        if not cascade:
            _refuse(order.names, core, {name for name in others if _stays_up(lives[name])})
        pending.memo["others"] = others if cascade else []
    return order._replace(names=[*pending.memo["others"], *order.names])


def _refuse(names: Sequence[str], core: Core, others: Collection[str]) -> None:
    services, lives = core.manager.services(), {name: unit.life for name, unit in core.manager.units.items()}
    held = set(needed(others, services))  # only these services are needed by `others`
    for name in names:
        if name in held and (lives[name].state in RUNS or lives[name].state is State.ASLEEP):
            by = [other for other in in_need([name], services, lives) if other in others]
            if by:
                raise Needed(name, by)


def _stays_up(life: Life) -> bool:
    """Whether a service is running, or being restarted, and is not about to stop for good."""
    return life.state in RUNS or (life.state is State.STOPPING and life.then is Then.START)
