"""Modules over the loss of spawnd, and over its exec, with a function that runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.daemon import Daemon, children, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import NOTE, module, notes, wait_notes
from tests.integration.versions import install

# over the loss of spawnd, and its exec


GATE = """
function start()
  note("start")
  while not fsys.access("@/out/gate") do proc.run("sleep", "0.05") end
  note("end")
end
function stop() note("stop") end
"""


def gate(daemon: Daemon, folder: Path) -> None:
    (folder / "out" / "gate").touch()


def test_a_start_that_runs_survives_an_exec(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", GATE))
    wait_notes(folder, "start")
    assert daemon.ctl("reexec").returncode == 0
    assert daemon.state("a") == "starting"
    gate(daemon, folder)
    daemon.wait_state("a", "running")
    assert daemon.ctl("stop", "a").returncode == 0  # from the text that was checked by the life before
    assert notes(folder) == ["start", "end", "stop"]


DIES_ONCE = """
import supervisor.process.fork_server as module
forks = module.fork_sibling
def fork_and_die():
    pid = forks()
    if pid:
        try:
            os.mkdir({marker!r})
            os._exit(1)
        except FileExistsError:
            pass
    return pid
module.fork_sibling = fork_and_die
"""


def test_a_function_whose_fork_server_dies_right_after_the_fork_runs_once(folder: Path) -> None:
    """Nobody knows that child, which has the plan."""
    marker = folder / "died"
    daemon = Daemon(folder, NOTE.replace("@", str(folder)) + module("a", GATE.replace("@", str(folder))))
    daemon.program = install(folder, then=DIES_ONCE.format(marker=str(marker)))
    with daemon:
        wait_notes(folder, "start")
        assert marker.exists()
        gate(daemon, folder)
        daemon.wait_state("a", "running")
        assert notes(folder) == ["start", "end"]
        assert daemon.services()["a"]["restarts"] == 1


LOST_ONCE = """
import signal
import supervisor.process.run as module
release = module.Run.release
def end_or_release(run):
    if run.role == {role!r} and not os.path.exists({marker!r}):
        os.mkdir({marker!r})
        os.kill(os.getpid(), signal.SIGKILL)
    release(run)
module.Run.release = end_or_release
"""


DIES_ONCE_BEFORE_IT_BEGINS = """
import signal
import supervisor.process.run as module
release = module.Run.release
def kill_or_release(run):
    if run.role == "stop" and not os.path.exists({marker!r}):
        os.mkdir({marker!r})
        os.kill(run.pid, signal.SIGKILL)
    release(run)
module.Run.release = kill_or_release
"""


def test_a_stop_whose_process_is_killed_before_the_call_is_called_by_the_next_stop(folder: Path) -> None:
    daemon = Daemon(folder, NOTE.replace("@", str(folder)) + module("a", NOTES))
    daemon.program = install(folder, then=DIES_ONCE_BEFORE_IT_BEGINS.format(marker=str(folder / "killed")))
    with daemon:
        daemon.wait_state("a", "running")
        stop = daemon.ctl("stop", "a")
        assert stop.returncode == 1
        assert "stop requested; cannot call stop: killed by KILL before it began" in stop.stderr
        assert daemon.ctl("stop", "a").returncode == 0
        assert notes(folder) == ["start", "stop"]


LOST_AT_THE_END = """
import signal
import supervisor.manager.processes as module
reaped = module.Processes.reaped
def end_or_go_on(self, pid, exit):
    if self._of(pid)[1].role == {role!r} and not os.path.exists({marker!r}):
        os.mkdir({marker!r})
        os.kill(os.getpid(), signal.SIGKILL)
    reaped(self, pid, exit)
module.Processes.reaped = end_or_go_on
"""


@pytest.mark.parametrize("role", ["start", "stop"])
def test_an_answer_is_known_if_spawnd_is_lost_before_it_has_written_down_what_follows(folder: Path, role: str) -> None:
    lose_at(folder, LOST_AT_THE_END, role)


@pytest.mark.parametrize("role", ["start", "stop"])
def test_a_call_is_made_once_if_spawnd_is_lost_before_it_releases_the_process(folder: Path, role: str) -> None:
    """The record has that process, which ends without a call."""
    lose_at(folder, LOST_ONCE, role)


def lose_at(folder: Path, change: str, role: str) -> None:
    """Have a changed spawnd end at a call of a function with this role, and the next one go on."""
    marker = folder / "lost"
    daemon = Daemon(folder, NOTE.replace("@", str(folder)) + module("a", f'restart = "never" {NOTES}'))
    daemon.program = install(folder, then=change.format(role=role, marker=str(marker)))
    daemon.start()
    if role == "stop":
        wait_until(daemon.answers, "an answer")
        daemon.wait_state("a", "running")
        daemon.ctl("stop", "--no-wait", "a")
    wait_until(daemon.ended, "its end")
    assert marker.exists()
    with daemon:
        if role == "start":
            daemon.wait_state("a", "running")
            assert daemon.ctl("stop", "a").returncode == 0
        daemon.wait_state("a", "stopped")
        assert notes(folder) == ["start", "stop"]
        wait_until(lambda: os.listdir(daemon.runtime / "functions") == [], "the answer to be gone")


NOTES = 'function start() note("start") end function stop() note("stop") end'


@contextmanager
def stuck(daemon: Daemon) -> Iterator[None]:
    """Stop the fork server, which has worked just now."""
    daemon.wait_log("log: running, pid ")
    (server,) = (pid for pid in children(daemon.pid) if f"log: running, pid {pid}\n" not in daemon.log())
    os.kill(server, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGCONT)


def test_spawnd_does_not_wait_for_its_fork_server(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", NOTES))
    daemon.wait_state("a", "running")
    with stuck(daemon):
        begun = time.monotonic()
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        assert daemon.state("a") == "stopping"
        assert time.monotonic() - begun < 4
    daemon.wait_state("a", "stopped")
    assert notes(folder) == ["start", "stop"]


def test_a_call_that_no_fork_server_makes_has_failed(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", NOTES))
    daemon.wait_state("a", "running")
    with stuck(daemon):
        stop = daemon.ctl("stop", "a")
        assert stop.returncode == 1
        assert "stop requested; cannot fork: not done within 5 s" in stop.stderr
        assert daemon.ctl("stop", "a").returncode == 0  # by another one
    assert notes(folder) == ["start", "stop"]


def test_a_stop_gives_up_a_start_that_is_not_forked_yet(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a") + module("b", f'status = "stop" {NOTES}'))
    daemon.wait_state("a", "running")
    assert daemon.ctl("start", "b").returncode == 0
    assert daemon.ctl("stop", "b").returncode == 0
    with stuck(daemon):
        assert daemon.ctl("start", "--no-wait", "b").returncode == 0
        assert daemon.state("b") == "starting"
        assert daemon.ctl("stop", "b").returncode == 0
        assert daemon.state("b") == "stopped"
    assert daemon.ctl("start", "b").returncode == 0
    assert notes(folder) == ["start", "stop", "start"]


def test_a_call_that_is_not_forked_yet_is_made_after_a_loss(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", NOTES))
    daemon.wait_state("a", "running")
    with stuck(daemon):
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        daemon.lose()
    daemon.again()
    daemon.wait_state("a", "stopped")
    assert notes(folder) == ["start", "stop"]


def test_an_exec_waits_for_a_fork(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", NOTES))
    daemon.wait_state("a", "running")
    with stuck(daemon):
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        reexec = Thread(target=daemon.ctl, args=("reexec",))
        reexec.start()
        daemon.wait_log("before it is executed")
    reexec.join()
    daemon.wait_log("executed anew")
    daemon.wait_state("a", "stopped")
    assert notes(folder) == ["start", "stop"]


def lose(daemon: Daemon) -> None:
    daemon.lose()
    daemon.again()


def test_a_start_that_runs_survives_a_loss(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", GATE))
    wait_notes(folder, "start")
    lose(daemon)
    assert daemon.state("a") == "starting"
    gate(daemon, folder)
    daemon.wait_state("a", "running")
    assert notes(folder) == ["start", "end"]
    assert daemon.services()["a"]["restarts"] == 0


def test_a_start_that_ended_while_there_was_no_spawnd_is_known(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", GATE) + module("b", GATE.replace('note("end")', 'return nil, "no"')))
    wait_notes(folder, "start", "start")
    daemon.lose()
    gate(daemon, folder)
    wait_until(lambda: not daemon.survivors() or all(_is_log(pid) for pid in daemon.survivors()), "their end")
    daemon.again()
    daemon.wait_state("a", "running")
    assert notes(folder).count("end") == 1
    daemon.wait_log("b: start failed: no")


def _is_log(pid: int) -> bool:
    try:
        return b"spawnd: log" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def test_what_is_up_without_a_process_is_up_after_a_loss(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", 'function start() note("start") end function stop() note("stop") end'))
    daemon.wait_state("a", "running")
    lose(daemon)
    assert daemon.state("a") == "running"
    assert daemon.ctl("stop", "a").returncode == 0
    assert notes(folder) == ["start", "stop"]
