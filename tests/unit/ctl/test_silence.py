"""A supervisor that does not answer: what is said about it, and that the wait goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.ctl import silence
from supervisor.ctl.client import Client, answers
from supervisor.ctl.errors import ExitCode
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.fake_supervisor import FakeSupervisor
from tests.unit.ctl.running import Running
from tests.unit.process.cgroups import subtree
from tests.unit.waiting import read_until, wait_until

Supervise = Callable[..., None]
Spawnctl = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def wait_stopped(pid: int) -> None:
    wait_until(lambda: silence._state(pid) == "T")


@pytest.mark.parametrize(
    ("arguments", "output"), [(("list", "--json"), "["), (("start", "mute"), "mute: "), (("monitor",), "web ")]
)
def test_one_that_is_stopped(
    path: str, supervise: Supervise, supervisors: list[FakeSupervisor], arguments: tuple[str, ...], output: str
) -> None:
    supervise()
    pid = supervisors[0].pid
    os.kill(pid, signal.SIGSTOP)
    wait_stopped(pid)
    with Running(path, *arguments) as running:
        error = running.error_fd()
        said = read_until(error, lambda data: data.endswith(b"\n")).decode()
        assert said == (
            f"spawnctl: the supervisor at '{path}' (pid {pid}) does not answer: it is stopped; "
            f'"kill -CONT {pid}" resumes it. Still waiting; Ctrl-C ends the wait.\n'
        )
        assert not running.has_output()
        os.kill(pid, signal.SIGCONT)
        assert running.text(output).endswith(output)


def test_an_order_to_one_that_is_stopped_ends_with_the_reason(
    path: str, supervise: Supervise, supervisors: list[FakeSupervisor], spawnctl: Spawnctl, capsys: Capture
) -> None:
    supervise()
    pid = supervisors[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_stopped(pid)
        assert spawnctl("start", "web", "--timeout", "0.2") == ExitCode.TIMED_OUT
    finally:
        os.kill(pid, signal.SIGCONT)
    assert capsys.readouterr().err == (
        f"spawnctl: the start is not done after 0.2 s, and goes on: the supervisor at '{path}' (pid {pid}) does not "
        f'answer: it is stopped; "kill -CONT {pid}" resumes it\n'
    )


def test_one_that_is_frozen(path: str, supervise: Supervise, supervisors: list[FakeSupervisor]) -> None:
    supervise()
    pid = supervisors[0].pid
    with subtree() as tree:
        inner = f"{tree.path}/inner"
        os.mkdir(inner)
        assert silence._frozen_by(pid) == ""
        Path(f"{inner}/cgroup.procs").write_text(str(pid))
        Path(f"{tree.path}/cgroup.freeze").write_text("1")
        try:
            assert silence._frozen_by(pid) == tree.path
        finally:
            Path(f"{tree.path}/cgroup.freeze").write_text("0")
            supervisors.pop().close()
        wait_until(lambda: Path(f"{inner}/cgroup.procs").read_text() == "")
        os.rmdir(inner)


def test_one_that_takes_its_time_with_an_order_is_not_silent(path: str, supervise: Supervise) -> None:
    def hang(core: FakeCore) -> None:
        core.plans.update(qotd="hangs")

    supervise(hang)
    client = Client(path)
    client.begin("Start", names=["qotd"])
    assert not client.has_reply(0.0)
    assert answers(path)
    client.close()


def test_one_that_is_gone_is_not_silent(path: str) -> None:
    """The end of the connection tells."""
    assert answers(path)
