"""`monitor`: a line for each change, as it happens."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import Terminal
from supervisor.ctl.verbs.monitor import line
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.fake_supervisor import FakeSupervisor
from tests.unit.ctl.running import Running

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]


def test_states_and_changes(spawnctl: Spawnctl, supervise: Supervise, path: str) -> None:
    supervise()
    with Running(path, "monitor", "w*", "qotd") as monitor:
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  web   stopped {14}  never started\n", monitor.line())
        assert monitor.line()[14:] == "qotd  stopped                never started\n"
        assert spawnctl("start", "web") == ExitCode.DONE
        lines = [monitor.line()[14:].rstrip() for _ in range(3)]
        assert lines[0] == "web   stopped -> waiting     start requested"
        assert lines[1].startswith("web   waiting -> starting")
        assert re.fullmatch(r"web   starting -> running    pid \d+", lines[2])
        assert monitor.interrupt() == ExitCode.INTERRUPTED


def test_changes_alone_as_json(spawnctl: Spawnctl, supervise: Supervise, path: str) -> None:
    def set_up(core: FakeCore) -> None:
        core.plans["web"] = "hangs"

    supervise(set_up)
    with Running(path, "monitor", "--json") as ready, Running(path, "monitor", "--changes-only", "--json") as monitor:
        assert [ready.row()["name"] for _ in range(3)] == ["web", "qotd", "mute"]
        # the second one says nothing when it is there
        while not monitor.has_output():
            assert spawnctl("start", "--no-wait", "-q", "web") == ExitCode.DONE
            assert spawnctl("stop", "--no-wait", "-q", "web") == ExitCode.DONE
        row = monitor.row()
        assert row.keys() == {"at", "name", "old", "state", "reason", "pid", "skipped"}
        assert row["old"] is not None


def test_the_supervisor_ends(supervise: Supervise, path: str, supervisors: list[FakeSupervisor]) -> None:
    supervise()
    with Running(path, "monitor") as monitor:
        monitor.text("mute")
        os.kill(supervisors[0].pid, signal.SIGKILL)
        code, _, error = monitor.wait()
    assert code == ExitCode.FAILED
    assert error == f"spawnctl: the supervisor at {path!r} closed the connection\n"


def test_whoever_read_it_is_gone(supervise: Supervise, path: str) -> None:
    supervise()
    with Running(path, "monitor") as monitor:
        monitor.text("mute")
        monitor.close_output()  # and nothing changes any more
        code, _, error = monitor.wait()
    assert (code, error) == (ExitCode.BROKEN_PIPE, "")


def change(**values: object) -> dict[str, Any]:
    usual: dict[str, object] = {
        "at": "2026-07-28T10:00:00.125+00:00",
        "name": "web",
        "old": "running",
        "state": "backoff",
        "reason": "exited with status 1",
        "pid": None,
        "skipped": 0,
    }
    return usual | values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "web   running -> backoff     exited with status 1"),
        ({"state": "running", "reason": "running", "pid": 7}, "web   running                pid 7"),
        ({"state": None, "reason": ""}, "web   running -> removed"),
        ({"old": None, "state": "waiting", "reason": "needs db"}, "web   waiting                needs db"),
        (
            {"reason": "a\x1bb", "skipped": 3},
            r"web   running -> backoff     a\x1bb, 3 changes before this one not read in time",
        ),
    ],
)
def test_lines(values: dict[str, object], text: str) -> None:
    shown = line(change(**values), 4, Terminal())
    assert re.fullmatch(r"\d\d:\d\d:00\.125", shown[:12])
    assert shown[14:] == text


def test_a_state_has_its_colour() -> None:
    assert "\x1b[33mrunning -> backoff   \x1b[0m" in line(change(), 4, Terminal(80, True))
