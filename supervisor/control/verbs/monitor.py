"""Monitor: the states of services, and every change of them."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.monitor import Monitor
from supervisor.control.names import resolve
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    wanted = parameters.strings("names", [])
    changes_only = parameters.boolean("changes_only")
    parameters.end()
    if not exchange.memo:
        resolve(wanted, core.units)  # one that means nothing is a mistake now, and may be gone later
    Monitor(exchange, core, wanted, changes_only)
