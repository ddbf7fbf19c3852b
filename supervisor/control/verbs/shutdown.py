"""Shutdown: have spawnd stop everything and end; the connection is closed then."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.log.logger import notice
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    Parameters(exchange.call.parameters).end()
    notice("shutdown: asked for by uid %d, pid %d", exchange.client.uid, exchange.client.pid)
    exchange.reply({})
    core.end()
