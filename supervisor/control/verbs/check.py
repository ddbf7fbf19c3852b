"""Check: evaluate the definition files as they are now, and change nothing."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters


def run(exchange: Exchange, core: Core) -> None:
    Parameters(exchange.call.parameters).end()
    core.check(lambda services, problems: exchange.reply({"services": services, "problems": problems}))
