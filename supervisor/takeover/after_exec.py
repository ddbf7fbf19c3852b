"""Restoring units after spawnd has executed itself anew: it still owns all processes and descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from supervisor.definitions.report import SharedValues
from supervisor.definitions.service import Slot
from supervisor.manager.manager import Manager
from supervisor.notify.receiver import Receiver
from supervisor.process.run import Role, Run
from supervisor.state.state import Record
from supervisor.state.state import State as Saved
from supervisor.takeover.records import RUN_FDS, Take, restore


def numbers(record: Record) -> set[int]:
    """Return the numbers of all descriptors in a unit's record."""
    run = record.get("run", {})
    tables = [record.get("table", {}), record.get("next", {}).get("table", {})]
    found = {saved[0] for table in tables for saved in table.values()}
    found |= {fd for _name, _polled, fd, _identity in record.get("store", ())}
    found |= {fd for fd, _identity in record.get("streams", ())}
    found |= {run[key] for key in RUN_FDS if key in run} | set(run.get("opens", ()))
    return found | ({record["receiver"]} if "receiver" in record else set())


def rebuild_units(manager: Manager, state: Saved) -> None:
    """Make all units again. Raises any exception caused by a state that this version does not understand."""
    shared = SharedValues()
    manager.sources.give(state.sources)
    for name, record in state.units.items():
        unit = manager.add(shared.service(state.services[name]), internal=record.get("internal", False))
        restore(unit, record, Inherited(record), manager.host, shared)
        if "receiver" in record:
            fd = inherited(record["receiver"])
            receiver = Receiver.resume(unit.notify_path, fd, manager.host.closer, manager.children.when_reaped)
            manager.processes.listen(unit, receiver)
    for unit in manager.units.values():
        manager.rebuild(unit)
    manager.index()


def inherited(fd: int) -> int:
    """Return a descriptor from before the exec, close-on-exec again."""
    os.set_inheritable(fd, False)
    return fd


class Inherited:
    """The `Source` of one unit: its process and descriptors are where they were."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def run(self) -> Run | None:
        if "pid" not in self._record:
            return None
        saved = self._record["run"]
        fds = {key: inherited(saved[key]) for key in RUN_FDS if key in saved}
        texts = {key: saved[key].encode("latin-1") for key in ("failure", "output") if key in saved}
        role = Role(saved.get("role", Role.MAIN))
        doubt = {key: saved[key] for key in ("in_doubt", "owed") if key in saved}
        run = Run(self._record["pid"], role, started=self._record["started"])
        for key, value in {**fds, **texts, **doubt}.items():
            setattr(run, key, value)
        if "opens" in saved:
            run.files = [inherited(fd) for fd in saved["opens"]]
        return run

    def descriptor(self, saved: Sequence[Any], slot: Slot | None = None) -> int | None:
        return inherited(saved[0])

    def streams(self, saved: Sequence[Sequence[Any]]) -> list[int]:
        return [inherited(fd) for fd, _identity in saved]

    def find_later(self, saved: Sequence[Any], what: str, take: Take) -> bool:
        return False
