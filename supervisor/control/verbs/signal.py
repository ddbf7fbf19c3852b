"""Signal: send a signal to the main process of services."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import reply_results, take_order
from supervisor.lifecycle.transaction import Outcome
from supervisor.process.children import signal_name
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

HIGHEST = 64  # SIGRTMAX


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    signum = parameters.integer("signal", 1, HIGHEST)
    order = take_order(pending, core, parameters, may_wait=False, detail=signal_name(signum))
    sent, missing = Outcome(True), Outcome(False, "it has no process")
    outcomes = [(name, sent if core.manager.signal(name, signum) else missing) for name in order.names]
    reply_results(pending, core, outcomes)
