"""GetVersion: the version and pid of spawnd."""

from __future__ import annotations

import os

from supervisor import __version__
from supervisor.control.core import Core
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    pending.reply({"version": __version__, "pid": os.getpid()})
