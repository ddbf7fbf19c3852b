"""Reset: forget the failures of services."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import reply_results, take_order
from supervisor.lifecycle.transaction import Outcome
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters), may_wait=False)
    core.manager.reset(order.names)
    reply_results(pending, core, [(name, Outcome(True)) for name in order.names])
