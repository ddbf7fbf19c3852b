"""Signal: send a signal to the main process of services."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import reply_results, take_order
from supervisor.lifecycle.outcome import Outcome
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters

HIGHEST = 64  # SIGRTMAX


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    signum = parameters.integer("signal", 1, HIGHEST)
    order = take_order(exchange, core, parameters, may_wait=False)
    sent, missing = Outcome(True), Outcome(False, "it has no process")
    outcomes = [(name, sent if core.signal(name, signum) else missing) for name in order.names]
    reply_results(exchange, core, outcomes)
