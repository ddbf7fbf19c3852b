"""Moments in which two things happen to a unit at once."""

from __future__ import annotations

import tempfile

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import Life, State
from supervisor.log.output import JournalOutputs
from supervisor.manager.host import HostFacts
from supervisor.manager.manager import Manager
from supervisor.manager.runtime import RuntimeFolder
from supervisor.notify.service_side import Sender
from supervisor.process.children import Children
from supervisor.systemd.reports import SystemdStore
from tests.unit.closing import PatientCloser
from tests.unit.program import PROGRAM
from tests.unit.waiting import checked_loop, turn


def test_one_that_is_woken_when_it_is_the_next_to_stop() -> None:
    """Its dependency has come up in the same moment in which what comes after it has stopped."""
    with tempfile.TemporaryDirectory() as folder, checked_loop() as loop:
        systemd_store = SystemdStore(loop, Sender(""), {})
        closer = PatientCloser()
        runtime, outputs = RuntimeFolder(folder), JournalOutputs(closer.close)
        host = HostFacts(False, 1024, runtime, outputs, None, systemd_store, closer, PROGRAM)
        manager = Manager(loop, Children(lambda pid, exit: None), host)
        waiting = manager.add(Service("waiting", exec="/bin/true"))
        later = manager.add(Service("later", exec="/bin/true", depends=("waiting",)))
        manager.index()
        waiting.life = Life(State.WAITING, loop.clock())
        later.life = Life(State.STOPPING, loop.clock())
        manager.stop(["waiting", "later"])
        assert waiting.life.state is State.WAITING
        later.life = Life(State.STOPPED, loop.clock())
        manager.index()  # wakes what waits
        turn(loop, 3)
        assert (waiting.life.state, later.life.state) == (State.STOPPED, State.STOPPED)
