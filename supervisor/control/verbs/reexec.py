"""Reexec: execute the installed version of spawnd, which sends the reply."""

from __future__ import annotations

import os

from supervisor import __version__
from supervisor.control.core import Core
from supervisor.control.errors import Failed
from supervisor.log.logger import log
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    if pending.resumed:
        pending.reply({"version": __version__, "pid": os.getpid()})
        return
    log.info("reexec: asked for by %s", pending.client.describe())
    core.reexec(lambda problem: pending.fail(Failed(problem)))
