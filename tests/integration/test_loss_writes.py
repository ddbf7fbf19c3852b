"""kill -9 of spawnd just after it has written its state: the next one still starts what was to be started."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import BIN, Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, with_argument
from tests.integration.test_life import SLEEP
from tests.integration.test_reload_edges import ENV

Program = Callable[[str, str], str]
# Once the file in $DIES is there, a spawnd that dies after so many writes about units as the file says.
DYING = f"""#!{sys.executable} -P
import os, signal, sys
from supervisor import spawnd
from supervisor.state.state import StateFile

def dying(write):
    def act(self, records):
        global writes
        records = list(records)
        write(self, records)
        if any("unit" in record for record in records) and os.path.exists(os.environ["DIES"]):
            writes += 1
            if writes == int(open(os.environ["DIES"]).read()):
                os.kill(os.getpid(), signal.SIGKILL)
    return act

writes = 0
StateFile.replace, StateFile.append = dying(StateFile.replace), dying(StateFile.append)
sys.exit(spawnd())
"""
LASTING = f'{{ exec = "/bin/sh", arg = {{ "-c", "exec sleep 100000", "@/mark-NAME" }}, {ENV} }}'


class Dying:
    """Has a daemon's next process die after its writes."""

    def __init__(self, program: str, armed: Path) -> None:
        self._program = program
        self._armed = armed

    @contextmanager
    def arm(self, daemon: Daemon, writes: int) -> Iterator[None]:
        """Have it die after so many `writes` from now on, in the block; the next one is an ordinary spawnd."""
        self._armed.write_text(str(writes))
        yield
        assert daemon.process is not None
        assert daemon.process.wait(60) == -signal.SIGKILL
        self._armed.unlink()
        daemon.program = str(BIN / "spawnd")

    def daemon(self, folder: Path, definitions: str) -> Daemon:
        daemon = Daemon(folder, definitions.replace("@", str(folder)), env={"DIES": str(self._armed)})
        daemon.program = self._program
        return daemon


@pytest.fixture
def dying(program: Program, folder: Path) -> Dying:
    return Dying(program("dying", DYING), folder / "dies")


def lasting(*names: str) -> str:
    return "".join(f"{name} = {LASTING.replace('NAME', name)}\n" for name in names)


def wait_each_once(daemon: Daemon, *names: str) -> None:
    for name in names:
        pid = daemon.wait_running(name)
        assert with_argument(f"{daemon.folder}/mark-{name}") in ([pid], []), "a shell that has not become sleep yet"


@pytest.mark.parametrize("writes", range(1, 5))
def test_services_of_a_first_start_are_started(folder: Path, dying: Dying, writes: int) -> None:
    daemon = dying.daemon(folder, lasting("a", "b") + f"c = {{ {SLEEP}, depends = {{ 'b' }} }}\n")
    try:
        with dying.arm(daemon, writes):
            daemon.start()
        daemon.again()
        wait_each_once(daemon, "a", "b")
        daemon.wait_state("c", "running")
        daemon.stop()
    finally:
        daemon.kill()


@pytest.mark.parametrize("writes", range(1, 4))
def test_services_that_were_being_stopped_are_started(folder: Path, dying: Dying, writes: int) -> None:
    """By the third spawnd, as the second one is lost as well."""
    slow = "trap '' TERM; : > @/trapped; while :; do sleep 0.05; done"
    text = f"""
    a = {{ {SLEEP} }}
    s = {{ exec = "/bin/sh", arg = {{ "-c", "{slow}" }}, {ENV}, user = "root", stop_timeout = "20s" }}
    """
    with dying.daemon(folder, text) as daemon:
        pid = daemon.wait_running("s")
        wait_until((folder / "trapped").exists, "the trap")
        daemon.signal(signal.SIGTERM)
        daemon.wait_state("a", "stopped")
        daemon.lose()
        with dying.arm(daemon, writes):
            daemon.start()
        daemon.again()
        daemon.wait_state("a", "running")
        assert daemon.ctl("signal", "KILL", "s").returncode == 0
        daemon.wait_running("s", other_than=pid)
        assert daemon.ctl("stop", "a").returncode == 0
        daemon.lose()
        daemon.again()
        assert daemon.state("a") == "stopped", "this stop was an operator's"
        daemon.kill()


@pytest.mark.parametrize("writes", range(1, 4))
def test_a_change_of_the_definitions_goes_on(folder: Path, dying: Dying, writes: int) -> None:
    """The last process of a service that goes is written down in the middle of the change."""
    keeps = 'kill_mode = "process", handover_signal = "USR1", backoff = { first = "1h", max = "1h" }'
    goes = f'k = {{ exec = "/bin/false", {keeps} }}\n'
    with dying.daemon(folder, lasting("a", "r") + goes) as daemon:
        before = {name: daemon.wait_running(name) for name in ("a", "r")}
        daemon.wait_state("k", "backoff")
        text = lasting("a", "r", "n").replace("100000", "100001") + "\n"
        daemon.definitions.write_text(text.replace("@", str(folder)).replace("100001", "100000", 1))
        with dying.arm(daemon, writes):
            daemon.signal(signal.SIGHUP)
        daemon.again()
        assert daemon.wait_running("a") == before["a"]
        daemon.wait_running("n")
        daemon.wait_running("r", other_than=before["r"])
        daemon.kill()


def test_services_that_go_in_order_are_gone_in_the_end(folder: Path, spawnd: Start) -> None:
    """The turn of the second one has not come when spawnd is lost."""
    stays = "trap '' TERM; : > @/trapped; while :; do sleep 0.05; done"
    a = f'a = {{ exec = "/bin/sh", arg = {{ "-c", "{stays}" }}, {ENV}, user = "root", depends = {{ "b" }} }}\n'
    daemon = spawnd(lasting("b", "c") + a.replace("@", str(folder)))
    wait_until((folder / "trapped").exists, "the trap")
    pid = daemon.wait_running("b")
    daemon.definitions.write_text(lasting("c").replace("@", str(folder)))
    daemon.signal(signal.SIGHUP)
    daemon.wait_state("a", "stopping")
    daemon.lose()
    daemon.again()
    assert daemon.pid_of("b") == pid
    assert daemon.ctl("signal", "KILL", "a").returncode == 0
    wait_until(lambda: daemon.services().keys() == {"c"}, "the end of the others")
    assert not alive(pid)


def test_a_service_that_waits_for_a_rival_is_started(folder: Path, spawnd: Start) -> None:
    """The turn of the rival to stop has not come when spawnd is lost."""
    stays = "trap '' TERM; : > @/trapped; while :; do sleep 0.05; done"
    daemon = spawnd(
        lasting("b")
        + f'a = {{ exec = "/bin/sh", arg = {{ "-c", "{stays}" }}, {ENV}, user = "root", depends = {{ "b" }} }}\n'
        + f'c = {{ {SLEEP}, conflicts = {{ "a", "b" }}, status = "stop" }}\n'
    )
    wait_until((folder / "trapped").exists, "the trap")
    assert daemon.ctl("start", "c", "--no-wait").returncode == 0
    daemon.wait_state("a", "stopping")
    daemon.lose()
    daemon.again()
    assert (daemon.state("b"), daemon.state("c")) == ("running", "waiting")
    assert daemon.ctl("signal", "KILL", "a").returncode == 0
    daemon.wait_state("c", "running")
    assert daemon.state("b") == "stopped"
