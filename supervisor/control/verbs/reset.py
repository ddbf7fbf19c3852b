"""Reset: forget the failures of services."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import reply_results, take_order
from supervisor.lifecycle.outcome import Outcome
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    order = take_order(exchange, core, Parameters(exchange.call.parameters), may_wait=False)
    core.reset(order.names)
    reply_results(exchange, core, [(name, Outcome(True)) for name in order.names])
