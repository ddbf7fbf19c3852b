"""Reload: ask services to reload, without a restart."""

from __future__ import annotations

from functools import partial

from supervisor.control.core import Core
from supervisor.control.orders import reply_results, take_order
from supervisor.definitions.service import Service
from supervisor.lifecycle.transaction import Outcome
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    order = take_order(pending, core, Parameters(pending.call.parameters))
    # a pattern selects only services that can reload
    can = {name for name in order.names if _can_reload(core.manager.units[name].service)}
    names = [name for name in order.names if name in order.literal | can]
    problems: dict[str, str] = pending.memo  # by service that was asked; '' without a problem

    def done(name: str, problem: str) -> None:
        problems[name] = problem
        reply_if_complete()

    def reply_if_complete() -> None:
        if all(name in problems for name in names):
            reply()

    def reply() -> None:
        asked = Outcome(True, "asked to reload")
        known = {name: Outcome(not problem, problem) for name, problem in problems.items()}
        reply_results(pending, core, [(name, known.get(name, asked)) for name in names])

    for name in [name for name in names if name not in problems]:
        core.side_calls.reload(name, partial(done, name))
    if order.waits:
        reply_if_complete()
    else:
        reply()


def _can_reload(service: Service) -> bool:
    return service.reload_signal is not None or "reload" in service.functions
