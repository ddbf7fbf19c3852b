"""Modules over the loss of spawnd, and over its exec, with a function that runs."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import Daemon, wait_until
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
