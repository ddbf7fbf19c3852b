"""Fds: the descriptor table of a service."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.errors import NoSuchService
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    name = parameters.string("name")
    parameters.end()
    unit = core.units.get(name)
    if unit is None:
        raise NoSuchService(name)
    rows = [
        {"number": row.number, "name": row.name, "what": row.what, "stored": row.stored} for row in unit.descriptors()
    ]
    exchange.reply({"descriptors": rows})
