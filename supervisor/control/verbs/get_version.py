"""GetVersion: which spawnd this is."""

from __future__ import annotations

import os

from supervisor import __version__
from supervisor.control.core import Core
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    Parameters(exchange.call.parameters).end()
    exchange.reply({"version": __version__, "pid": os.getpid()})
