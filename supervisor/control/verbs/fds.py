"""Fds: the descriptor table of a service."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.control.core import Core
from supervisor.control.errors import NoSuchService
from supervisor.control.orders import find
from supervisor.definitions.service import Slot
from supervisor.process.paths import Sight
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

REMARKS = {
    Sight.REPLACED: " (replaced)",
    Sight.TAKEN: " (replaced)",
    Sight.DELETED: " (deleted)",
    Sight.CUT_OFF: " (deleted)",
    Sight.RENAMED: " (renamed)",
}


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    name = parameters.string("name")
    parameters.end()
    find(name, core.manager.units)

    def reply(sights: Mapping[Slot, Sight]) -> None:
        unit = core.manager.units.get(name)
        if unit is None:
            pending.fail(NoSuchService(name))
            return
        rows = []
        for row in unit.descriptors():
            remark = REMARKS[sights[row.number]] if row.number in sights and not row.stored else ""
            rows.append({"number": row.number, "name": row.name, "what": row.what + remark, "stored": row.stored})
        pending.reply({"descriptors": rows})

    core.inspect(name, reply)
