"""Start: start services, after their dependencies. Restart: the same, but those that run get another process.

Reset: forget the failures of services.
"""

from __future__ import annotations

from supervisor.control.core import Core, Unit
from supervisor.control.orders import answer, reply_results, take_order
from supervisor.lifecycle.transaction import NO_PROCESS, Outcome, restarted, started
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters))
    pending.once(lambda: core.manager.start(order.names))
    answer(pending, core, order, lambda unit: started(unit.service, unit.life, core.manager.units))


def restart(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    ends = parameters.boolean("sessions")
    order = take_order(pending, core, parameters, detail="with the sessions" if ends else "")
    units, before = core.manager.units, pending.memo
    pending.once(lambda: before.update({name: units[name].life.starts for name in order.names}))
    pending.once(lambda: core.manager.restart(order.names, ends_sessions=ends))

    def judge(unit: Unit) -> Outcome | None:
        if unit.is_looked_at:
            return None
        outcome = restarted(unit.service, unit.life, units, before.get(unit.name, 0))
        return Outcome(False, unit.stale) if outcome is NO_PROCESS and unit.stale else outcome

    answer(pending, core, order, judge)


def reset(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters), may_wait=False)
    core.manager.reset(order.names)
    reply_results(pending, core, [(name, Outcome(True)) for name in order.names])
