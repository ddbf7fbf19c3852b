"""Units that go on after spawnd has executed itself anew: all processes and descriptors are still its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from supervisor.definitions.report import SharedValues
from supervisor.manager.manager import Manager
from supervisor.manager.restore import restore
from supervisor.notify.receiver import Receiver
from supervisor.process.run import Role, Run
from supervisor.state.file import Record
from supervisor.state.state import State as Kept


def resume_units(manager: Manager, state: Kept) -> None:
    """Make all units again.  Raises whatever a state leads to that this version does not understand."""
    shared = SharedValues()
    manager.texts.give(state.texts)
    for name, record in state.units.items():
        unit = manager.add(shared.service(state.services[name]), internal=record.get("internal", False))
        restore(unit, record, Inherited(record), manager.host, shared)
        if "receiver" in record:
            path = manager.host.runtime.notify_path(name)
            manager.listen(unit, Receiver.resume(path, inherited(record["receiver"])))
    for unit in manager.units.values():
        manager.resume(unit)
    manager.index()


def inherited(fd: int) -> int:
    """A descriptor from the life before, which is not to be inherited by others."""
    os.set_inheritable(fd, False)
    return fd


class Inherited:
    """The source of what one unit had: everything is where it was."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def run(self) -> Run | None:
        if "pid" not in self._record:
            return None
        kept = self._record["run"]
        error_fd, ready_fd, pidfd = (
            inherited(kept[key]) if key in kept else -1 for key in ("error_fd", "ready_fd", "pidfd")
        )
        failure = kept.get("failure", "").encode("latin-1")
        role = Role(kept.get("role", Role.MAIN))
        return Run(self._record["pid"], role, error_fd, ready_fd, failure, self._record["started"], pidfd)

    def descriptor(self, kept: Sequence[Any], slot: str = "") -> int | None:
        return inherited(kept[0])

    def streams(self, kept: Sequence[Sequence[Any]]) -> list[int]:
        return [inherited(fd) for fd, _identity in kept]
