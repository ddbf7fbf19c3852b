"""Errors of spawnctl, each with its exit code."""

from __future__ import annotations

import os
from collections.abc import Mapping

from supervisor.ctl import exit_code
from supervisor.ctl.undefined import how_to_apply, how_to_define
from supervisor.errors import SpawnError
from supervisor.printable import printable, quoted
from supervisor.runtime_folder import CONTROL, default_sockets


class SpawnctlError(SpawnError):
    """`reply` is the error as it came, where it came from somebody."""

    code = exit_code.FAILED
    reply: Mapping[str, object] | None = None


class UsageError(SpawnctlError):
    code = exit_code.USAGE


class NoSupervisor(SpawnctlError):
    code = exit_code.NO_SUPERVISOR

    def __init__(self, path: str, cause: str) -> None:
        if os.path.isdir(path):
            cause = f"it is a folder, in which the socket is called {CONTROL!r}"
        known = default_sockets()
        others = " or ".join(quoted(other) for other in known if other != path) if path in known else ""
        elsewhere = f"; others may be at {others}, or where --socket says" if others else ""
        super().__init__(f"no supervisor at {quoted(path)}: {cause}{elsewhere}")


class NotPermitted(SpawnctlError):
    code = exit_code.NOT_PERMITTED

    def __init__(self, path: str) -> None:
        super().__init__(f"not permitted to control the supervisor at {quoted(path)}")


class ConnectionLost(SpawnctlError):
    """The supervisor went away with the answer outstanding."""


class MalformedReply(SpawnctlError):
    """The supervisor sent something that fits no interface known here."""


class NoSuchService(SpawnctlError):
    code = exit_code.NO_SUCH_SERVICE


class TimedOut(SpawnctlError):
    """An order is not carried out yet, and nobody waits for it any longer; `why` says what it waits for, if known."""

    code = exit_code.TIMED_OUT

    def __init__(self, verb: str, seconds: float, why: str = "") -> None:
        cause = f": {why}" if why else ""
        super().__init__(f"the {verb} is not done after {seconds:g} s, and goes on{cause}")


class CallFailed(SpawnctlError):
    """The supervisor answered with an error that is none of the above."""


def from_reply(path: str, error: str, parameters: Mapping[str, object]) -> SpawnctlError:
    """The error of a Varlink reply."""
    explained = _explain(path, error, parameters)
    own = error == "io.spawnd.ServiceError"  # which holds the service's, and that is the one that matters
    explained.reply = {
        "error": parameters.get("error") if own else error,
        "parameters": parameters.get("parameters") if own else parameters,
    }
    return explained


def _explain(path: str, error: str, parameters: Mapping[str, object]) -> SpawnctlError:
    name = parameters.get("name")
    match error:
        case "org.varlink.service.PermissionDenied":
            return NotPermitted(path)
        case "org.varlink.service.MethodNotFound":
            return CallFailed(f"the supervisor does not know {parameters.get('method')}: it is of another version")
        case "io.spawnd.NoSuchService":
            suggestion = parameters.get("suggestion")
            new = how_to_apply(str(name)) if path == default_sockets()[-1] else ""
            meant = new or (f"; did you mean {suggestion!r}?" if suggestion else how_to_define(str(name)))
            return NoSuchService(f"no such service '{printable(str(name))}'{meant}")  # its escapes are made already
        case "io.spawnd.Needed":
            by = parameters.get("by")
            others = ", ".join(map(str, by)) if isinstance(by, list) else ""
            return CallFailed(f"{name} is needed by {others}: nothing was stopped; --cascade stops them, too")
        case "io.spawnd.NoLog":
            return CallFailed(f"{name} has no log(): its output is kept where its definition has `stderr = log()`")
        case "io.spawnd.OtherDefinitions":
            digest = parameters.get("digest")
            return CallFailed(f"not the expected definitions, nothing was changed: their digest is {digest}")
        case "io.spawnd.NoControl":
            return CallFailed(f"{name} cannot be called: it has no control = true")
        case "io.spawnd.NotRunning":
            state = parameters.get("state")
            why = "it has failed" if state == "failed" else f"it is {state}"
            if state in ("running", "reloading"):
                why = "nobody listens on its control socket"
            return CallFailed(f"{name} cannot be called: {why}; `spawnctl why {name}` says more")
        case "io.spawnd.TimedOut":
            return CallFailed(f"{name} did not answer within {parameters.get('timeout'):g} s")
        case "io.spawnd.ConnectionLost":
            return CallFailed(f"{name} closed the connection before it answered")
        case "io.spawnd.BadReply":
            return CallFailed(f"what {name} sent is no reply: {parameters.get('message')}")
        case "io.spawnd.ServiceError":
            own = _detailed(parameters.get("error"), parameters.get("parameters"))
            return CallFailed(f"{name}: {own}")
        case "io.spawnd.TooManyClients":
            return CallFailed("the supervisor has too many clients")
        case "io.spawnd.Failed":
            return CallFailed(str(parameters.get("message")))
        case _:
            return CallFailed(_detailed(error, parameters))


def _detailed(error: object, parameters: object) -> str:
    """An error that nobody here knows, of whomever."""
    items = parameters.items() if isinstance(parameters, dict) else ()
    detail = ", ".join(f"{key} {value!r}" for key, value in items)
    return printable(f"{error}: {detail}" if detail else str(error))
