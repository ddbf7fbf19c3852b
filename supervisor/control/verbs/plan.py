"""Plan: the effects of changing to the present definition files. Check: only whether they are right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from supervisor.control.core import Core
from supervisor.errors import DefinitionsError, SpawnError
from supervisor.lifecycle.plan import Plan
from supervisor.varlink.messages import Failed, Parameters
from supervisor.varlink.pending_call import PendingCall


def check(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    core.changes.check(partial(_checked, pending))


def _checked(pending: PendingCall, services: int, problems: list[str], notices: Sequence[str]) -> None:
    pending.reply({"services": services, "problems": problems, "notices": list(notices)})


def run(pending: PendingCall, core: Core) -> None:
    # Only plans need this module. An import error here reaches the caller.
    from supervisor.control.planned import service_rows, setting_rows

    parameters = Parameters(pending.call.parameters)
    reloads = parameters.boolean("reload")
    parameters.end()

    def done(result: Plan | SpawnError) -> None:
        if isinstance(result, DefinitionsError):
            pending.reply(_reply(problems=result.problems))
        elif isinstance(result, SpawnError):
            pending.fail(Failed(str(result)))
        else:
            definitions = result.definitions
            pending.reply(
                _reply(
                    notices=result.notices(),
                    digest=definitions.digest,
                    defined=len(definitions.services),
                    services=service_rows(result),
                    settings=setting_rows(result),
                )
            )

    core.changes.plan(reloads, done)


def _reply(
    *,
    problems: Sequence[str] = (),
    notices: Sequence[str] = (),
    digest: str = "",
    defined: int = 0,
    services: Sequence[dict[str, object]] = (),
    settings: Sequence[dict[str, object]] = (),
) -> dict[str, object]:
    return {
        "problems": list(problems),
        "notices": list(notices),
        "digest": digest,
        "defined": defined,
        "services": list(services),
        "settings": list(settings),
    }
