"""`why`: the answer first, then the way to it, what to do and the last words."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import Terminal
from supervisor.ctl.verbs import why
from supervisor.definitions.service import Service
from supervisor.lifecycle.life import Cause, Ended, Life, State
from tests.unit.control.fake_core import FakeCore, FakeUnit

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]


def a_chain(core: FakeCore) -> None:
    """web waits for app, which waits for db, which has failed."""
    now = core.loop.clock()
    for name, depends in (("web", "app"), ("app", "db")):
        core.units[name] = FakeUnit(Service(name, depends=(depends,)), now)
        core.units[name].life = Life(State.WAITING, now - 200)
    core.units["db"] = FakeUnit(Service("db"), now)
    core.units["db"].life = Life(State.FAILED, now - 100, cause=Cause.EXIT, failures=10)
    core.units["db"].ended = Ended(status=1)
    core.write("db", b"opening\nno \x1b[31mspace\n")


def test_the_answer_and_the_way_to_it(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(a_chain)
    assert spawnctl("why", "web") == ExitCode.DONE
    assert capsys.readouterr().out.splitlines() == [
        "web is not running: it needs app, which needs db, which has failed: its process exited with status 1; "
        "given up after 10 failures in a row",
        "",
        "  web  waiting  3m20s  it needs app",
        "  app  waiting  3m20s  it needs db",
        "  db   failed   1m40s  its process exited with status 1; given up after 10 failures in a row",
        "",
        "To do: fix that, then run `spawnctl start db`",
        "",
        "The last lines of db:",
        "  opening",
        r"  no \x1b[31mspace",
    ]
    assert spawnctl("why", "app", "--json") == ExitCode.DONE
    reply = json.loads(capsys.readouterr().out)
    assert (reply["root"], reply["kind"], reply["lines"][0]) == ("db", "exit", "opening")


def test_several_services_are_answered_one_after_the_other(
    spawnctl: Spawnctl, supervise: Supervise, capsys: Capture
) -> None:
    supervise(a_chain)
    assert spawnctl("start", "qotd") == ExitCode.DONE
    capsys.readouterr()
    assert spawnctl("why", "app", "?b", "qotd") == ExitCode.DONE
    out = capsys.readouterr().out
    assert out.count("The last lines of ") == 1
    assert [line.partition(" ")[0] for line in out.splitlines() if line.startswith(("app ", "db ", "qotd "))] == [
        "app",
        "db",
        "qotd",
    ]
    assert "\n\ndb has failed: " in out
    assert "\n\nqotd has been running since " in out
    assert spawnctl("why", "--json", "all") == ExitCode.DONE
    replies = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {reply["name"]: reply["root"] for reply in replies} == {
        "web": "db", "app": "db", "db": "db", "qotd": "qotd", "mute": "mute"
    }  # fmt: skip
    assert spawnctl("why", "web", "x*") == ExitCode.NO_SUCH_SERVICE
    assert capsys.readouterr() == ("", "spawnctl: no such service 'x*'\n")


def test_nothing_to_answer(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise(lambda core: [core.units.pop(name) for name in ("web", "qotd", "mute")])
    assert spawnctl("why", "all") == ExitCode.DONE
    assert capsys.readouterr().out == "Nothing to do: no services are defined\n"


def test_an_answer_that_says_it_all(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    supervise()
    assert spawnctl("start", "web") == ExitCode.DONE
    capsys.readouterr()
    assert spawnctl("why", "web") == ExitCode.DONE
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("web has been running since ")


def test_the_last_words_are_in_the_journal(
    spawnctl: Spawnctl, supervise: Supervise, path: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_up(core: FakeCore) -> None:
        core.journal = True

    supervise(set_up)
    folder = os.path.dirname(path)
    monkeypatch.setenv("PATH", folder)
    assert spawnctl("why", "web") == ExitCode.DONE, "it answers also where there is no journalctl"
    captured = capsys.readouterr()
    assert captured.out.startswith("web is not running: ")
    assert "cannot run journalctl" in captured.err
    program = Path(folder, "journalctl")
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(stat.S_IRWXU)
    assert spawnctl("why", "web", "--json") == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["lines"] == ["-t web -n 5 -q -o cat"]


def test_states_are_in_colour_on_a_terminal() -> None:
    links: list[dict[str, Any]] = [
        {"name": "web", "state": "waiting", "state_s": 5.0, "text": "it needs db"},
        {"name": "db", "state": None, "state_s": None, "text": ""},
    ]
    assert why.chain(links, Terminal(80, True)) == [
        "  web  \x1b[33mwaiting\x1b[0m  5s  it needs db",
        "  db   -         -  it is not defined",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('nginx: [emerg] open() "/dev/stdout" failed (6: No such device or address)', True),
        ("ERROR: failed to open error_log (/proc/self/fd/2): No such device or address (6)", True),
        ('open() "/dev/stdout" failed (13: Permission denied)', False),
        ("cannot open /dev/modem: No such device or address", False),
    ],
)
def test_a_program_that_opens_its_stream_of_the_journal_is_told_what_to_do(line: str, told: bool) -> None:
    advice = why.of_sockets("web", ["starting", line])
    assert ("is a socket" in advice and 'file("/var/log/web.log", "a")' in advice) is told
