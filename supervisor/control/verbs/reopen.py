"""Reopen: reopen the files that services write to at their paths, without a restart."""

from __future__ import annotations

from functools import partial

from supervisor.control.core import Core
from supervisor.control.orders import reply_results, take_order
from supervisor.lifecycle.transaction import Outcome
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters))
    # a pattern selects only services that write to files
    names = [name for name in order.names if name in order.literal or core.writes_files(name)]
    outcomes: dict[str, Outcome] = {}

    def done(name: str, outcome: Outcome) -> None:
        outcomes[name] = outcome
        if order.waits and len(outcomes) == len(names):
            reply()

    def reply() -> None:
        asked = Outcome(True, "asked to reopen its files")
        reply_results(pending, core, [(name, outcomes.get(name, asked)) for name in names])

    for name in names:
        core.reopen(name, partial(done, name))
    if not order.waits or not names:
        reply()
