"""Logs: the last lines of a service's output, and what follows them, or that the journal has them."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.errors import NoSuchService
from supervisor.control.follow import Follow
from supervisor.control.output import read, reply_of
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters

LINES = 20
MOST = 1_000_000


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    name = parameters.string("name")
    count = parameters.integer("count", 0, MOST, LINES)
    parameters.end()
    if name not in core.units:
        raise NoSuchService(name)
    if exchange.call.more:
        Follow(exchange, core, name, count)
    else:
        exchange.reply(reply_of(read(core, name), count))
