"""Words that may follow on a command line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from importer.kinds import KINDS
from supervisor.ctl.completion import PATIENCE, candidates
from supervisor.ctl.main import main
from supervisor.ctl.parsers import verb_parser
from supervisor.ctl.verbs import VERBS
from supervisor.ctl.verbs.signal import signal_number
from supervisor.lifecycle.life import Life, State
from tests.unit.control.fake_core import FakeCore
from tests.unit.waiting import HELD_UP

Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]
OF_EACH_VERB = {"--help", "--socket", "--json"}
GENERAL = {*OF_EACH_VERB, "--version"}
EVERYBODY = {"web", "qotd", "mute", "all"}


def words(*typed: str) -> set[str]:
    return {word for word, _meaning in candidates(typed)}


def test_verbs() -> None:
    assert dict(candidates([""])) == VERBS
    assert dict(candidates([])) == VERBS
    assert dict(candidates(["--json", "--socket", "/x", ""])) == VERBS
    assert dict(candidates(["st"])) == VERBS, "the shell chooses"
    assert words("nope", "") == set()


def test_sessions_of_the_service(supervise: Supervise, path: str) -> None:
    """The fake supervisor has none; the arguments before and after have theirs."""
    supervise()
    assert words("--socket", path, "kill", "") == EVERYBODY - {"all"}
    assert words("--socket", path, "kill", "web", "") == set()
    assert {"TERM", "RTMIN"} <= words("--socket", path, "kill", "web", "1", "")
    assert words("--socket", path, "sessions", "") == EVERYBODY


def test_general_options() -> None:
    assert words("-") == GENERAL
    assert words("--json", "--so") == GENERAL - {"--json"}
    assert words("--socket", "") == set()


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_every_verb(verb: str) -> None:
    parser = verb_parser(verb)[1]
    found = words(verb, "--")
    assert found >= OF_EACH_VERB
    assert found == {max(action.option_strings, key=len) for action in parser._actions if action.option_strings}


def test_options_that_are_there_already() -> None:
    assert "--no-wait" in words("start", "web", "--")
    assert "--no-wait" not in words("start", "--no-wait", "web", "--")
    assert words("logs", "-n", "") == set()
    assert words("apply", "--expect", "--") == set()
    assert "--reload" in words("apply", "--expect=x", "--")


@pytest.mark.parametrize("verb", VERBS)
def test_names_of_every_verb_that_takes_some(supervise: Supervise, path: str, verb: str) -> None:
    supervise()
    arguments = [action for action in verb_parser(verb)[1]._actions if not action.option_strings]
    before = ["TERM"] if verb == "signal" else []
    found = words("--socket", path, verb, *before, "") - VERBS.keys()
    if not any(action.metavar == "NAME" for action in arguments):
        assert found == (set(KINDS) if verb == "import" else set())
    elif any(action.metavar == "NAME" and action.nargs in ("+", "*") for action in arguments):
        assert found == EVERYBODY
    else:
        assert found == EVERYBODY - {"all"}
        assert words("--socket", path, verb, "web", "") == set()


def test_verbs_to_be_told_about() -> None:
    assert words("help", "") == VERBS.keys()
    assert words("help", "list", "") == set()


def test_names_come_with_their_state_and_once(supervise: Supervise, path: str) -> None:
    def set_up(core: FakeCore) -> None:
        core.units["web"].life = Life(State.RUNNING)

    supervise(set_up)
    assert dict(candidates(["start", "--socket", path, ""])) == {
        "web": "running",
        "qotd": "stopped",
        "mute": "stopped",
        "all": "every service",
    }
    assert words(f"--socket={path}", "start", "web", "--no-wait", "") == {"qotd", "mute"}
    assert words("start", "--socket", path, "--", "--") == EVERYBODY


def test_a_socket_in_the_home_folder(supervise: Supervise, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    supervise()
    monkeypatch.setenv("HOME", os.path.dirname(path))
    assert words("--socket", "~/control", "status", "") == EVERYBODY


def test_signals() -> None:
    found = words("signal", "")
    assert {"TERM", "HUP", "USR1", "RTMIN", "RTMIN+1"} <= found
    assert len({signal_number(name) for name in found}) == len(found)


def test_nothing_is_said_without_a_supervisor(path: str, capsys: Capture) -> None:
    assert main(["--complete", "--socket", path, "start", ""]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_supervisor_that_does_not_answer_is_not_waited_for(path: str, capsys: Capture) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        begun = time.monotonic()
        assert main(["--complete", "--socket", path, "start", ""]) == 0
        assert PATIENCE <= time.monotonic() - begun < HELD_UP
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_nothing_is_said_to_who_is_not_permitted(supervise: Supervise, path: str) -> None:
    supervise()
    command = [sys.executable, "-c", "import sys; from supervisor.ctl.main import main; sys.exit(main())"]
    result = subprocess.run(
        [*command, "--complete", "--socket", path, "start", ""],
        capture_output=True,
        user=65534,
        group=65534,
        extra_groups=[],
        check=True,
    )
    assert (result.stdout, result.stderr) == (b"", b"")


def test_a_line_for_each(capsys: Capture) -> None:
    assert main(["--complete", "gr"]) == 0
    assert "graph\tshow the dependencies of services, or the times of the start\n" in capsys.readouterr().out
