"""Taking over after a loss: another spawnd was killed, and its services live on.

A service whose process is still there goes on as it was, with its descriptors got back from
that process or from what systemd kept of them.  One that ended meanwhile ended in an unknown
way.  What cannot be understood, of another version perhaps, is ended: it must not run twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from supervisor.definitions.report import SharedValues
from supervisor.errors import StepError
from supervisor.lifecycle import machine, outlook
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.life import State
from supervisor.linux.open_files import open_files
from supervisor.log.logger import log, notice
from supervisor.manager import functions
from supervisor.manager.manager import Manager
from supervisor.manager.records import own_files
from supervisor.manager.restore import restore
from supervisor.manager.salvage import Salvage
from supervisor.manager.unit import Unit
from supervisor.process.answer import take_answer
from supervisor.process.cgroup import Leaf, Subtree
from supervisor.process.children import UNKNOWN
from supervisor.process.leftovers import (
    Process,
    group_lives,
    kill_processes,
    left_by,
    look_at_all,
    relatives,
    still_living,
)
from supervisor.process.run import Role, Run
from supervisor.process.survivor import Holder, find_survivor, has_ended
from supervisor.state.file import Record
from supervisor.state.state import State as Kept

GONE = "ended in an unknown way while there was no spawnd"
END_TIMEOUT = 2.0  # seconds for what is killed to be gone
END_POLL = 0.005  # seconds between two looks


class TakeOver:
    """`pool` are descriptors by identity that came with the start of this spawnd; what is wanted of them goes."""

    def __init__(self, manager: Manager, kept: Kept, pool: dict[str, int]) -> None:
        self._manager = manager
        self._kept = kept
        self._pool = pool
        self._shared = SharedValues()
        self._readers: list[Holder] = []  # the log worker, once it is found: it holds every service's output
        self._ended: list[_Ended] = []
        self._unseen: dict[str, tuple[bool, set[str]]] = {}  # of whom nobody saw the end: was it a check, its own files

    def run(self) -> None:
        """Take over all that there is; then it is as if this spawnd had started it."""
        taken = []
        records = self._kept.units
        # what is built in comes first: it holds something of the others
        for name in sorted(records, key=lambda name: not records[name].get("internal", False)):
            unit = self._take(name, records[name])
            if unit is not None:
                taken.append(unit)
        self._end_left([unit for unit in taken if unit.run is None])
        self._wait_ended()
        self._manager.texts.give(self._kept.texts)
        self._manager.index(self._kept.services)
        alive = sum(unit.run is not None for unit in taken)
        notice("taking over from spawnd %d: %d services, %d of them alive", self._kept.pid, len(taken), alive)
        for unit in taken:
            self._resume(unit)
        self._manager.remove([unit for unit in taken if unit.removed])
        self._manager.sweep()

    def _take(self, name: str, record: Record) -> Unit | None:
        run = None
        try:
            run = _process(record)
            role = Role(record["run"].get("role", Role.MAIN)) if "run" in record else Role.MAIN
            if run is not None and role is Role.CHECK:
                self._end(_Ended(run))  # nobody would hear what came of it
                run = None
            elif run is not None:
                run.role = role
            service = self._shared.service(self._kept.services[name])
            unit = self._manager.add(service, internal=record.get("internal", False))
            restore(unit, record, Salvage(run, self._readers, self._pool), self._manager.host, self._shared)
            if run is None and "pid" in record and unit.cgroup is None:  # of a cgroup it is known when it is empty
                self._unseen[name] = role is Role.CHECK, own_files(record)
        except Exception as error:
            why = f"{type(error).__name__}: {error}" if name in self._kept.services else "it is of another version"
            log.error("%s: cannot be taken over, so it is ended: %s", name, why)
            self._manager.discard(name)
            self._end(_everything(record, run))
            return None
        if run is None and role.is_function:
            self._learn_answer(unit, role)
        if run is not None and unit.internal:
            self._readers.append(Holder(run))
        return unit

    def _resume(self, unit: Unit) -> None:
        """Hear of it from now on, and tell its life what happened meanwhile."""
        manager, run = self._manager, unit.run
        if run is not None:
            self._resume_process(unit, run)
        else:
            manager.resume(unit)
        unit.sessions.clear()  # their members are no descendants of this spawnd: those that live are the others
        manager.event(unit, machine.recovered, run is not None)
        if run is None and outlook.runs(unit.service, unit.life):
            if unit.ended_clean is None:
                unit.last_exit, unit.ended = GONE, Ended()
            manager.ended(unit)
        if unit.life.state in (State.WAITING, State.BACKOFF) and "table" in self._kept.units[unit.name]:
            # its clients are to queue again
            try:
                unit.table.open_missing(unit.service)
            except StepError as error:
                log.warning("%s: %s", unit.name, error)

    def _resume_process(self, unit: Unit, run: Run) -> None:
        service = unit.service
        waits = service.ready == "fd" and unit.life.state is State.STARTING
        if waits:
            run.ready_fd = Holder(run).reading_end(service.ready_fd or -1)
        self._manager.resume(unit)
        self._manager.bind_receiver(unit)
        if unit.cgroup is None and service.kill_mode == "process":
            unit.others = relatives({**unit.others, run.pid: run.started}, look_at_all())
            unit.others.pop(run.pid, None)
        lost = unit.table.missing(service)
        if lost:
            log.warning("%s: descriptors not got back: %s", unit.name, ", ".join(lost))
        if waits and run.ready_fd < 0:
            # it has closed what it was to say it on, and could not be heard
            self._manager.ready(unit)

    def _learn_answer(self, unit: Unit, function: Role) -> None:
        """The function has ended meanwhile, and said how."""
        if unit.ended_clean is not None:
            return
        path = self._manager.host.runtime.answer_path(unit.name, function.value)
        answer = take_answer(path)
        if answer is not None:
            unit.ended_clean = answer.ok
            unit.ended = functions.ended_of(function, answer, UNKNOWN)
            unit.last_exit = functions.describe(function, answer, UNKNOWN)

    # what is not taken over

    def _end_left(self, units: Sequence[Unit]) -> None:
        """Main processes have ended meanwhile: what they have left ends too, or is one of the others."""
        everybody = look_at_all() if self._unseen or any(unit.others for unit in units) else []
        for unit in units:
            unit.others = relatives(unit.others, everybody)
            if unit.name in self._unseen:
                self._end_left_by(unit, everybody)

    def _end_left_by(self, unit: Unit, everybody: Sequence[Process]) -> None:
        record, (was_check, own) = self._kept.units[unit.name], self._unseen[unit.name]
        left = left_by(
            record["pid"],
            record["started"],
            self._kept.written,
            everybody,
            lambda pid: not own.isdisjoint(open_files(pid)),
        )
        if outlook.spares_others(unit.service, unit.life, bool(unit.ended_clean)) and not was_check:
            unit.others |= left
        else:
            self._end(_Ended(processes=left))

    def _end(self, ended: _Ended) -> None:
        with suppress(StepError, OSError):
            ended.kill()
        self._ended.append(ended)

    def _wait_ended(self) -> None:
        """Until they are gone they hold addresses that their successors need."""
        deadline = time.monotonic() + END_TIMEOUT
        while any(ended.lives() for ended in self._ended) and time.monotonic() < deadline:
            time.sleep(END_POLL)
        for ended in self._ended:
            ended.close()


class _Ended:
    """What is killed: a main process with its group, others by pid and start time, a cgroup.  Owns `run`."""

    def __init__(
        self, run: Run | None = None, processes: Mapping[int, int] | None = None, cgroup: Leaf | None = None
    ) -> None:
        self._run = run
        self._processes = processes or {}
        self._cgroup = cgroup

    def kill(self) -> None:
        """Raises StepError where the cgroup does not take it; the others have been killed then."""
        if self._run is not None:
            self._run.kill_group()
        if self._processes:
            kill_processes(self._processes)
        if self._cgroup is not None:
            self._cgroup.kill()

    def lives(self) -> bool:
        run = self._run
        return (
            (run is not None and (not has_ended(run.pidfd) or group_lives(run.pid, run.started)))
            or bool(still_living(self._processes))
            or (self._cgroup is not None and self._cgroup.is_populated())
        )

    def close(self) -> None:
        if self._run is not None:
            self._run.close()


def _everything(record: Mapping[str, Any], run: Run | None) -> _Ended:
    """All that a record which is not understood tells of."""
    cgroup, others = record.get("cgroup"), {}
    with suppress(TypeError, ValueError):
        others = {int(pid): int(started) for pid, started in record.get("others", ())}
    return _Ended(run, others, Leaf(Subtree(os.path.dirname(cgroup)), cgroup) if isinstance(cgroup, str) else None)


def _process(record: Record) -> Run | None:
    """The unit's process if it lives.  Raises what a record of another version may lead to."""
    return find_survivor(int(record["pid"]), int(record["started"])) if "pid" in record else None
