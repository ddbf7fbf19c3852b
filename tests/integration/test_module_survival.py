"""Modules over the loss of spawnd, and over its exec, with a function that runs."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import NOTE, module, notes, wait_notes

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
