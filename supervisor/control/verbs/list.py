"""List: a row for every service, or for those that are named."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.names import resolve
from supervisor.control.rows import summary
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    wanted = parameters.strings("names", [])
    parameters.end()
    names = resolve(wanted, core.units) if wanted else core.units
    now = exchange.loop.clock()
    exchange.reply({"services": [summary(core.units[name], core, now) for name in names]})
