"""`call`: what is printed of what a service says, and of what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.control.errors import BadReply, ConnectionLost, ControlError, NotRunning, ServiceError, TimedOut
from supervisor.control.verbs import METHODS
from supervisor.ctl.errors import ExitCode
from supervisor.varlink.pending_call import PendingCall
from tests.unit.control.fake_core import FakeCore

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]
METHOD = "io.spawnd.Call"


def replying(*replies: dict[str, Any]) -> Callable[[FakeCore], None]:
    """A service that says this, whatever it is asked."""

    def run(pending: PendingCall, _core: object) -> None:
        for reply in replies[:-1]:
            pending.reply_more({"reply": reply})
        pending.reply({"reply": replies[-1]})

    return lambda core: METHODS.update({METHOD: run})


def echo(_core: FakeCore) -> None:
    METHODS[METHOD] = lambda pending, _: pending.reply({"reply": pending.call.parameters})


def failing(error: ControlError) -> Callable[[FakeCore], None]:
    return lambda core: METHODS.update({METHOD: lambda pending, _: pending.fail(error)})


def test_a_reply_is_readable(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(replying({"text": "Grüße\x1b[2J\x9b2J\u202e\U000e0001", "n": [1]}))
    assert spawnctl("call", "web", "Do") == ExitCode.DONE
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": "Grüße\x1b[2J\x9b2J\u202e\U000e0001", "n": [1]}
    assert "Grüße" in out
    assert out.replace("\n", "").isprintable()


def test_a_reply_as_json(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(echo)
    assert spawnctl("call", "web", "Do", '{"x": ["é", null]}', "--timeout", "2.5", "--json") == ExitCode.DONE
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"name": "web", "method": "Do", "parameters": {"x": ["é", None]}, "timeout": 2.5}


def test_many_replies_are_a_line_each(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(replying({"n": 1}, {"n": 2}, {}))
    assert spawnctl("call", "web", "Do", "--more") == ExitCode.DONE
    assert capsys.readouterr().out == '{"n": 1}\n{"n": 2}\n{}\n'


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ServiceError("web", "a.b.Bad", {"what": "x\x1b"}), "web: a.b.Bad: what 'x\\x1b'"),
        (ServiceError("web", "a.b.\x1bBad", {}), "web: a.b.\\x1bBad"),
        (ServiceError("web", "io.spawnd.NoSuchService", {"name": "x"}), "web: io.spawnd.NoSuchService: name 'x'"),
        (ServiceError("web", "org.varlink.service.PermissionDenied", {}), "web: org.varlink.service.PermissionDenied"),
        (NotRunning("web", "stopped"), "web cannot be called: it is stopped; `spawnctl why web` says more"),
        (
            NotRunning("web", "running"),
            "web cannot be called: no process listens on its control socket; `spawnctl why web` says more",
        ),
        (TimedOut("web", 10.0), "web did not answer within 10 s"),
        (TimedOut("web", 2.5), "web did not answer within 2.5 s"),
        (ConnectionLost("web"), "web closed the connection before it answered"),
        (BadReply("web", "not JSON"), "the reply of web is invalid: not JSON"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--more",)])
def test_errors(
    spawnctl: Spawnctl,
    supervise: Supervise,
    capsys: Capture,
    error: ControlError,
    message: str,
    more: tuple[str, ...],
) -> None:
    supervise(failing(error))
    assert spawnctl("call", "web", "Do", *more) == ExitCode.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"spawnctl: {message}\n"
    assert spawnctl("call", "web", "Do", "--json", *more) == ExitCode.FAILED
    captured = capsys.readouterr()
    own = isinstance(error, ServiceError)
    assert json.loads(captured.out) == {
        "error": error.parameters["error"] if own else error.name,
        "parameters": error.parameters["parameters"] if own else error.parameters,
    }
    assert captured.err == f"spawnctl: {message}\n"


def test_a_service_that_is_none_and_one_without_a_channel(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture
) -> None:
    supervise()
    assert spawnctl("call", "nope", "Do") == ExitCode.NO_SUCH_SERVICE
    assert capsys.readouterr().err == "spawnctl: no such service 'nope'\n"
    assert spawnctl("call", "web", "Do", "--json") == ExitCode.FAILED
    captured = capsys.readouterr()
    assert captured.err == "spawnctl: web cannot be called: it has no control = true\n"
    assert json.loads(captured.out)["error"] == "io.spawnd.NoControl"
