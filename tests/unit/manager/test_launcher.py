"""How a service's notification socket is read, and which plans are kept."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.definitions.service import Service
from supervisor.log.output import JournalOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.launcher import LONG_TURN, Launcher
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.unit import Unit
from supervisor.notify.service_side import Sender
from supervisor.process.children import Children, Exit
from supervisor.process.pipes import REST
from supervisor.systemd.reports import SystemdStore
from tests.unit.closing import PatientCloser, bind_receiver
from tests.unit.loop.clock import Clock
from tests.unit.program import PROGRAM
from tests.unit.waiting import turn


def launcher_of(loop: Loop, folder: Path, take: Callable[[Unit], None]) -> Launcher:
    systemd_store = SystemdStore(loop, Sender(""), {})
    closer = PatientCloser()
    runtime, outputs = RuntimeFolder(str(folder)), JournalOutputs(closer.close)
    host = HostFacts(False, 1024, runtime, outputs, None, systemd_store, closer, PROGRAM)
    return Launcher(loop, Children(lambda pid, exit: None), host, Sources(), take)


@pytest.mark.parametrize(("worker", "took", "rests"), [("", 2, True), ("", 0.5, False), ("w", 2, False)])
def test_a_service_that_sends_all_the_time_has_a_share(tmp_path: Path, worker: str, took: float, rests: bool) -> None:
    """Workers are trusted, and store thousands of descriptors."""
    errors: list[BaseException] = []
    clock = Clock()
    loop = Loop(errors.append, clock)
    heard: list[float] = []

    def take(unit: Unit) -> None:
        heard.append(clock.now)
        clock.now += took * LONG_TURN

    launcher = launcher_of(loop, tmp_path, take)
    unit = Unit(Service("s", exec="/bin/s", worker=worker, uid=os.geteuid()), loop, PatientCloser())
    receiver = bind_receiver(tmp_path / "socket")
    try:
        launcher.listen(unit, receiver)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"STATUS=x", receiver.path)  # which stays there
            turn(loop, 4)
            assert len(heard) == (1 if rests else 4)
            clock.now += 1.01 * took * LONG_TURN * REST
            turn(loop, 2)
            assert len(heard) == (2 if rests else 6)
            unit.receiver = None
            clock.now += 1
            turn(loop, 2)
        assert not errors
    finally:
        loop.unwatch(receiver.fileno())
        receiver.close()
        loop.close()


class Owner:
    def died(self, pid: int) -> None:
        pass

    def reaped(self, pid: int, exit: Exit) -> None:
        pass


def test_the_plan_of_a_service_that_restarts_is_kept_until_it_rests(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    launcher = launcher_of(loop, tmp_path, lambda unit: None)
    service = Service("s", exec="/bin/sh", arg=("-c", 'exit "$STATUS"'), env={"STATUS": "3"}, uid=os.geteuid())
    unit = Unit(service, loop, PatientCloser())

    def start(restarts: int) -> int:
        unit.life = unit.life._replace(restarts=restarts)
        run = launcher.launch(unit, Owner(), lambda _run: None)
        assert run is not None
        run.release()
        status = os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1])
        run.close()
        return status

    kept = launcher.plans
    try:
        assert (start(0), list(kept)) == (3, [])
        assert (start(1), list(kept)) == (3, ["s"])
        plan = kept["s"][1]
        assert (start(2), kept["s"][1] is plan) == (3, True)
        unit.service = replace(service, env={"STATUS": "4"})
        assert (start(3), kept["s"][1] is plan) == (4, False)
        assert not errors
    finally:
        loop.close()
