"""Restart: have services up anew; what is down is started."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import take_order
from supervisor.control.wait import answer
from supervisor.lifecycle.outcome import restarted
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    order = take_order(exchange, core, Parameters(exchange.call.parameters))
    before: dict[str, int] = exchange.memo
    exchange.once(lambda: before.update({name: core.units[name].life.starts for name in order.names}))
    exchange.once(lambda: core.restart(order.names))
    answer(exchange, core, order, lambda unit: restarted(unit.service, unit.life, core.units, before.get(unit.name, 0)))
