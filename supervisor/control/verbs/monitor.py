"""Monitor: the states of services, and every change of them."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.monitor import Monitor
from supervisor.control.orders import resolve
from supervisor.varlink.parameters import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("names", [])
    changes_only = parameters.boolean("changes_only")
    parameters.end()
    if not pending.memo:
        resolve(wanted, core.manager.units)  # one that means nothing is a mistake now, and may be gone later
    Monitor(pending, core, wanted, changes_only)
