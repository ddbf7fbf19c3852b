"""How long a command waits for what it has ordered, and what it says when that takes too long."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.ctl.parsers import verb_parser
from supervisor.ctl.verbs import VERBS
from supervisor.lifecycle.life import Life, State
from tests.unit.control.fake_core import FakeCore

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]

SHORT = "0.3"  # seconds: enough for the order to arrive, and for nothing else
LONG = "600"
THAT_WAIT = ("start", "stop", "restart", "sleep", "reload", "reopen", "apply", "reexec", "shutdown")


def hanging(core: FakeCore) -> None:
    """web runs and does not stop nor reload, qotd does not start."""
    core.units["web"].life = Life(State.RUNNING, core.loop.clock(), starts=1)
    core.units["web"].pid = 42
    core.plans.update(web="stubborn", qotd="hangs")


def states(spawnctl: Spawnctl, capsys: Capture) -> dict[str, str]:
    assert spawnctl("list", "--json") == ExitCode.DONE
    return {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("more", [(), ("--json",), ("--quiet",)])
@pytest.mark.parametrize(
    ("verb", "names", "why", "state"),
    [
        ("start", ["qotd"], "qotd is starting: it is being set up", "starting"),
        ("restart", ["qotd", "mute"], "qotd is starting: it is being set up", "starting"),
        ("start", ["q*", "mute"], "qotd is starting: it is being set up", "starting"),
        ("restart", ["web"], "web is being restarted: it was requested; its process has", "stopping"),
        ("stop", ["mute", "web"], "web is stopping: an order stopped it; its process has", "stopping"),
        ("stop", ["mute", "web", "--cascade"], "web is stopping: an order stopped it; its process has", "stopping"),
    ],
)
def test_the_wait_ends_and_the_order_stays(
    spawnctl: Spawnctl,
    supervise: Supervise,
    capsys: Capture,
    verb: str,
    names: list[str],
    why: str,
    state: str,
    more: tuple[str, ...],
) -> None:
    supervise(hanging)
    assert spawnctl(verb, *names, "--timeout", SHORT, *more) == ExitCode.TIMED_OUT
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(f"spawnctl: the {verb} is not done after {SHORT} s, and goes on: {why}")
    assert said.count("\n") == 1
    assert states(spawnctl, capsys)["web" if "web" in names else "qotd"] == state


def test_how_many_wait(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        core.plans.update(web="hangs", qotd="hangs", mute="hangs")

    supervise(set_up)
    assert spawnctl("start", "qotd", "web", "--timeout", SHORT) == ExitCode.TIMED_OUT
    assert capsys.readouterr().err.endswith(" (and 1 other service)\n")
    assert spawnctl("start", "all", "--timeout", SHORT) == ExitCode.TIMED_OUT
    assert capsys.readouterr().err.endswith(" (and 2 other services)\n")


def test_a_wait_for_anything_else(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    """Where nothing is known about the wait, nothing is told about it."""

    def set_up(core: FakeCore) -> None:
        core.plans["web"] = "hangs"

    supervise(set_up)
    for verb in (["reload", "web"], ["shutdown"]):  # this supervisor never ends
        assert spawnctl(*verb, "--timeout", SHORT) == ExitCode.TIMED_OUT
        assert capsys.readouterr() == ("", f"spawnctl: the {verb[0]} is not done after {SHORT} s, and goes on\n")


@pytest.mark.parametrize("more", [(), ("--timeout", LONG), ("--no-wait",)])
def test_an_order_that_is_carried_out_in_time(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, more: tuple[str, ...]
) -> None:
    supervise()
    for verb in ("start", "restart", "stop"):
        assert spawnctl(verb, "web", *more, "--quiet") == ExitCode.DONE
    assert spawnctl("apply", *more) == ExitCode.DONE
    assert capsys.readouterr() == ("Nothing to do\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_waits_takes_a_limit(verb: str) -> None:
    options = {name for action in verb_parser(verb)[1]._actions for name in action.option_strings}
    assert ("--timeout" in options) == (verb in THAT_WAIT or verb == "call")
    assert ("--no-wait" in options) <= (verb in THAT_WAIT)


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "soon", "1e9", ""])
@pytest.mark.parametrize("verb", ["start web", "apply", "shutdown", "reexec"])
def test_wrong_limits(spawnctl: Spawnctl, capsys: Capture, verb: str, limit: str) -> None:
    assert spawnctl(*verb.split(), f"--timeout={limit}") == ExitCode.USAGE
    assert "not a number of seconds up to a day" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["start web", "stop web", "apply", "shutdown"])
def test_a_limit_of_no_wait(spawnctl: Spawnctl, capsys: Capture, verb: str) -> None:
    assert spawnctl(*verb.split(), "--timeout", "1", "--no-wait") == ExitCode.USAGE
    assert "not allowed with" in capsys.readouterr().err
