"""Start: have services up, with what they depend on."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import take_order
from supervisor.control.wait import answer
from supervisor.lifecycle.outcome import started
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    order = take_order(exchange, core, Parameters(exchange.call.parameters))
    exchange.once(lambda: core.start(order.names))
    answer(exchange, core, order, lambda unit: started(unit.service, unit.life, core.units))
