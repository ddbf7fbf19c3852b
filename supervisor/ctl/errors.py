"""Errors of spawnctl, each with its exit code, and advice about undefined services."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import IntEnum

from supervisor.errors import SpawnError
from supervisor.places import CONTROL, default_sockets
from supervisor.printable import EXIT_BROKEN_PIPE, printable, quoted

MOST_FILES = 1000  # definition files that are searched for an undefined service
LARGEST = 1 << 20  # bytes of a definition file
NETNS = "netns@"
LOG = "log"


class ExitCode(IntEnum):
    """Exit statuses of spawnctl."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NO_SUCH_SERVICE = 4
    NOT_PERMITTED = 5
    NO_SUPERVISOR = 6
    TIMED_OUT = 7
    INTERRUPTED = 130  # 128 + SIGINT, as in shells
    BROKEN_PIPE = EXIT_BROKEN_PIPE


class SpawnctlError(SpawnError):
    """Root of spawnctl's errors; `reply` is the error as received, if any."""

    code = ExitCode.FAILED
    reply: Mapping[str, object] | None = None


class UsageError(SpawnctlError):
    code = ExitCode.USAGE


class NoSupervisor(SpawnctlError):
    code = ExitCode.NO_SUPERVISOR

    def __init__(self, path: str, cause: str) -> None:
        if os.path.isdir(path):
            cause = f"it is a directory, in which the socket is called {CONTROL!r}"
        known = default_sockets()
        others = " or ".join(quoted(other) for other in known if other != path) if path in known else ""
        elsewhere = f"; others may be at {others}, or where --socket says" if others else ""
        super().__init__(f"no supervisor at {quoted(path)}: {cause}{elsewhere}")


class NotPermitted(SpawnctlError):
    code = ExitCode.NOT_PERMITTED

    def __init__(self, path: str) -> None:
        super().__init__(f"not permitted to control the supervisor at {quoted(path)}")


class ConnectionLost(SpawnctlError):
    """The supervisor closed the connection before it answered."""


class MalformedReply(SpawnctlError):
    """The supervisor sent a reply that matches no known interface."""


class NoSuchService(SpawnctlError):
    code = ExitCode.NO_SUCH_SERVICE


class TimedOut(SpawnctlError):
    """The client stopped waiting for an order, which continues; `why` says what delays it, if known."""

    code = ExitCode.TIMED_OUT

    def __init__(self, verb: str, seconds: float, why: str = "") -> None:
        cause = f": {why}" if why else ""
        super().__init__(f"the {verb} is not done after {seconds:g} s, and goes on{cause}")


class CallFailed(SpawnctlError):
    """The supervisor answered with another error."""


def from_reply(path: str, error: str, parameters: Mapping[str, object]) -> SpawnctlError:
    """Return the exception for a Varlink error."""
    explained = _explain(path, error, parameters)
    own = error == "io.spawnd.ServiceError"  # a wrapper for the error of the service, which is the relevant one
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
            return NoSuchService(f"no such service '{printable(str(name))}'{meant}")  # the name is escaped already
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
                why = "no process listens on its control socket"
            return CallFailed(f"{name} cannot be called: {why}; `spawnctl why {name}` says more")
        case "io.spawnd.TimedOut":
            return CallFailed(f"{name} did not answer within {parameters.get('timeout'):g} s")
        case "io.spawnd.ConnectionLost":
            return CallFailed(f"{name} closed the connection before it answered")
        case "io.spawnd.BadReply":
            return CallFailed(f"the reply of {name} is invalid: {parameters.get('message')}")
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
    """Return the text of an unknown error, from the supervisor or a service."""
    items = parameters.items() if isinstance(parameters, dict) else ()
    detail = ", ".join(f"{key} {value!r}" for key, value in items)
    return printable(f"{error}: {detail}" if detail else str(error))


def how_to_define(name: str) -> str:
    """Return advice how to define such a service, after `; `; '' if the name gives no hint."""
    if name == LOG:
        return "; the log worker runs where there is no journal and a service has log()"
    if name.startswith(NETNS):
        return f"; it is there where a definition file has `netns.{name.removeprefix(NETNS)} = {{ … }}`"
    if name == "netns":
        return "; network namespaces are services of names like netns@blue"
    from supervisor.definitions.programs import installed  # needed for errors only

    return f"; {definition(name)}" if name in installed() else ""


def definition(worker: str) -> str:
    """Return advice how to define a worker of this package."""
    line = f'{worker} = {{ worker = "{worker}", … }}'
    return f"no definition has `{line}`: `make install PLATFORM=1` installs one, docs/{worker}.md explains it"


def how_to_apply(name: str, folder: str = "") -> str:
    """Return advice how to apply a file that defines the service, after `; `; '' if no file does.

    The file is in `folder`, or in spawnd's default folder.
    """
    from supervisor.places import SYSCONFDIR  # needed for errors only

    folder = folder or f"{SYSCONFDIR}/spawnd/services.d"
    written = re.escape(name)
    defines = re.compile(
        rf"""^(?:_G\.)?{written}\s*=(?!=)|^_G\[\s*["']{written}["']\s*\]\s*=|\bmodule\s*\(\s*["']{written}["']""", re.M
    )
    try:
        files = sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(".lua") and entry.is_file())
    except OSError:
        return ""
    for path in files[:MOST_FILES]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = defines.search(file.read(LARGEST))
        except OSError:
            continue
        if found:
            return f"; {quoted(path)} defines it: `spawnctl apply` brings that into force"
    return ""
