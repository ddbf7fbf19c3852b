"""List: a row for each service, or for the named ones."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import resolve, summary
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("names", [])
    parameters.end()
    names = resolve(wanted, core.manager.units) if wanted else core.manager.units
    now = pending.loop.clock()
    pending.reply({"services": [summary(core.manager.units[name], core, now) for name in names]})
