"""Check: evaluate the present definition files, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from supervisor.control.core import Core
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    core.changes.check(partial(_answer, pending))


def _answer(pending: PendingCall, services: int, problems: list[str], notices: Sequence[str]) -> None:
    pending.reply({"services": services, "problems": problems, "notices": list(notices)})
