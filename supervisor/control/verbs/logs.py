"""Logs: the last lines of a service's output, and new ones as they come, or a note that the journal has them."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import find
from supervisor.control.output import Follow, read, reply_of
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

LINES = 20
MOST = 1_000_000


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    name = parameters.string("name")
    count = parameters.integer("count", 0, MOST, LINES)
    parameters.end()
    find(name, core.manager.units)
    if pending.call.more:
        Follow(pending, core, name, count)
    else:
        pending.reply(reply_of(read(core, name), count))
