"""Start: start services, after their dependencies."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import answer, take_order
from supervisor.lifecycle.transaction import started
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters))
    pending.once(lambda: core.manager.start(order.names))
    answer(pending, core, order, lambda unit: started(unit.service, unit.life, core.manager.units))
