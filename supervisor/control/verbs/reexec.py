"""Reexec: become the installed version of spawnd; the reply comes from that one."""

from __future__ import annotations

import os

from supervisor import __version__
from supervisor.control.core import Core
from supervisor.control.errors import Failed
from supervisor.log.logger import log
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    Parameters(exchange.call.parameters).end()
    if exchange.resumed:
        exchange.reply({"version": __version__, "pid": os.getpid()})
        return
    log.info("reexec: asked for by uid %d, pid %d", exchange.client.uid, exchange.client.pid)
    core.reexec(lambda problem: exchange.fail(Failed(problem)))
