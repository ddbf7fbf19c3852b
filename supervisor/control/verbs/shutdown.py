"""Shutdown: stop all services and end; the connection is closed then."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.log.logger import notice
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    notice("shutdown: asked for by %s", pending.client.describe())
    pending.reply({})
    core.end()
