"""Sleep: end the processes of services, and keep their sockets open for the next client."""

from __future__ import annotations

from supervisor.control.core import Core, Unit
from supervisor.control.orders import answer, take_order
from supervisor.lifecycle.transaction import Outcome, slept
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

CANNOT = Outcome(False, "no client could wake it: it needs a process, and a socket that is not connected or a FIFO")


def run(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters))
    units = core.manager.units
    pending.once(lambda: core.manager.sleep([name for name in order.names if units[name].service.can_sleep]))

    def judge(unit: Unit) -> Outcome | None:
        return slept(unit.service, unit.life, units) if unit.service.can_sleep else CANNOT

    answer(pending, core, order, judge)
