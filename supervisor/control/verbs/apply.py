"""Apply: change to the definition files as they are now, and wait until everything planned has come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from supervisor.control.applied import Applied, steps_of
from supervisor.control.core import Core
from supervisor.control.errors import OtherDefinitions
from supervisor.control.orders import log_order
from supervisor.errors import DefinitionsError, OtherDefinitionsError, SpawnError
from supervisor.lifecycle.plan import Plan
from supervisor.varlink.messages import Failed
from supervisor.varlink.parameters import Parameters
from supervisor.varlink.pending_call import PendingCall

MEMO = "applied"

Reply = dict[str, object]


def run(pending: PendingCall, core: Core) -> None:
    # only plans need it, and only from here a failure is told to the caller, before anything is changed
    from supervisor.control.planned import setting_rows

    parameters = Parameters(pending.call.parameters)
    expect = parameters.string("expect", "")
    reloads = parameters.boolean("reload")
    waits = not parameters.boolean("no_wait") and not pending.call.oneway
    parameters.end()

    def done(result: Plan | SpawnError) -> None:
        if isinstance(result, DefinitionsError):
            pending.reply(_reply(result.problems))
        elif isinstance(result, OtherDefinitionsError):
            pending.fail(OtherDefinitions(result.digest))
        elif isinstance(result, SpawnError):
            pending.fail(Failed(str(result)))
        else:
            pending.memo[MEMO] = _memo(result, setting_rows(result))
            _answer(pending, core, waits)

    if MEMO in pending.memo:
        _answer(pending, core, waits)
    else:
        pending.once(lambda: log_order(pending, ["the definitions"]))
        core.changes.apply(expect, reloads, done)


def _memo(plan: Plan, settings: Sequence[Reply]) -> Reply:
    """All that the answer is made from, besides the state of the services."""
    definitions = plan.definitions
    reply = _reply((), plan.notices(), definitions.digest, settings)
    return {"reply": reply, "steps": steps_of(plan), "reloaded": False}


def _answer(pending: PendingCall, core: Core, waits: bool) -> None:
    """Answer by the memo: the same whether the definitions have just been changed or somebody begins anew."""
    memo = pending.memo[MEMO]
    applied = Applied(pending, core, memo["steps"], partial(_finish, pending, memo["reply"]))
    if memo["reloaded"]:
        applied.forget_reloads()
    else:
        memo["reloaded"] = True
        applied.reload()
    applied.wait() if waits else applied.tell()


def _finish(pending: PendingCall, reply: Reply, rows: list[Reply]) -> None:
    pending.reply(reply | {"services": rows})


def _reply(
    problems: Sequence[str] = (), notices: Sequence[str] = (), digest: str = "", settings: Sequence[Reply] = ()
) -> Reply:
    return {
        "problems": list(problems),
        "notices": list(notices),
        "digest": digest,
        "services": [],
        "settings": list(settings),
    }
