"""What is told of a unit's descriptors is what its process gets."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from supervisor.definitions.service import Descriptor, Service
from supervisor.log.output import JournalOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.launcher import Launcher
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.unit import Unit
from supervisor.notify.service_side import Sender
from supervisor.process.children import Children
from supervisor.systemd.reports import SystemdStore
from tests.unit.closing import PatientCloser

NULL = Descriptor("file", name="null", path="/dev/null", access="r")


def test_a_workers_descriptors(loop: Loop, tmp_path: Path) -> None:
    """Its options are between its table and what it has stored."""
    systemd_store = SystemdStore(loop, Sender(""), {})
    closer = PatientCloser()
    runtime, outputs = RuntimeFolder(str(tmp_path)), JournalOutputs(closer.close)
    host = HostFacts(False, 1024, runtime, outputs, None, systemd_store, closer)
    launcher = Launcher(loop, Children(lambda pid, exit: None), host, Sources(), lambda unit: None)
    unit = Unit(Service("w", worker="w", fd=(NULL,), fdstore_max=1, lines={"stderr": 3}), loop, PatientCloser())
    assert unit.store.add("kept", [os.open("/dev/null", os.O_RDONLY)], False, 1) == 0
    with ExitStack() as theirs:
        given = [name for name, _ in launcher._descriptors(unit, theirs)]
    rows = unit.descriptors()
    assert [row.number for row in rows] == list(range(len(rows)))
    assert [row.name for row in rows[3:]] == given == ["null", "options", "kept"]
    assert [row.what for row in rows[:3]] == ["file /dev/null r", "log of spawnd", "file /dev/null w"]
    assert [row.stored for row in rows[3:]] == [False, False, True]
    unit.store.clear()
