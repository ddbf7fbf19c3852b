"""Inspection of the paths of units' files and sockets, in a child: a file system that hangs delays nothing else.

Before a restart, the running process accepts the clients of a socket that is gone from its path. No new client
reaches such a socket, so the clients in its backlog are the last ones. The kernel moves no client to another
socket, and the next process gets one socket per number: the new one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from supervisor.definitions.service import Descriptor, Slot
from supervisor.errors import ServedFileError, StepError
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State, Step, Transition
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager.host import HostFacts
from supervisor.manager.unit import Unit
from supervisor.process.children import AnsweringChild, Children
from supervisor.process.files import IsLocal, Rights, rights_of
from supervisor.process.held_descriptors import UNIX, Opened, has_waiting, is_displaced, open_descriptor
from supervisor.process.paths import Mark, Sight, look

TIME_LIMIT = 2.0  # seconds; paths that take longer count as unchanged
MOST_TOLD = 8  # services named in a log line

Marks = Mapping[str, tuple[Mark, ...]]
Sights = dict[str, dict[Mark, Sight]]  # by unit: changed paths
Done = Callable[[Sights], None]

POLL = 0.02  # seconds between two looks


def marks_of(units: Iterable[Unit]) -> dict[str, tuple[Mark, ...]]:
    """Return the paths to inspect, by unit."""
    marks = {unit.name: unit.table.marks() for unit in units}
    return {name: found for name, found in marks.items() if found}


def still_seen(unit: Unit, sights: Sights) -> dict[Slot, Sight]:
    """Return the changes by slot, without slots that were opened anew since the inspection."""
    present = unit.table.marks()
    seen = {mark.slot: sight for mark, sight in sights.get(unit.name, {}).items() if mark in present}
    return {slot: unit.table.refined(slot, sight) for slot, sight in seen.items()}


def inspect_paths(loop: Loop, children: Children, marks: Marks, done: Done) -> None:
    """Inspect the paths once; the loop calls `done` once."""

    def answered(answer: bytes, in_time: bool) -> None:
        if not in_time or not answer:
            names = ", ".join(list(marks)[:MOST_TOLD])
            who = "the process that looks" if in_time else f"a file system within {TIME_LIMIT:g} s"
            log.warning("paths of %s: no answer from %s; what is open stays", names, who)
        done(_sights(marks, answer if in_time else b""))

    if not marks:
        loop.call_soon(lambda: done({}))
        return
    try:
        AnsweringChild(loop, children, lambda fd: _look_at_all(marks, fd), TIME_LIMIT, answered)
    except OSError as error:
        log.warning("cannot look at the paths of files and sockets: %s", error.strerror)
        loop.call_soon(lambda: done({}))


def _look_at_all(marks: Marks, write_fd: int) -> None:
    found: Sequence[tuple[str, Slot, Sight]] = [
        (name, slot, sight) for name, some in marks.items() for slot, sight in look(some).items()
    ]
    with open(write_fd, "wb") as pipe:
        pipe.write(json.dumps(found).encode())


def _sights(marks: Marks, answer: bytes) -> Sights:
    found: Sights = {name: {} for name in marks}
    for name, slot, sight in json.loads(answer or b"[]"):
        mark = next(mark for mark in marks[name] if mark.slot == slot)
        found[name][mark] = Sight(sight)
    return {name: seen for name, seen in found.items() if seen}


def open_successor(
    name: str,
    slot: Slot,
    spec: Descriptor | None,
    rights: Rights | None,
    opened: dict[Slot, Opened],
    is_local: IsLocal,
) -> None:
    """Open the successor of a service's descriptor into `opened`, unless there is one or none is wanted.

    A failure is logged and no error: the descriptor stays as it was. The next start opens one that is not
    `is_local`.
    """
    if spec is None or slot in opened:
        return
    try:
        opened[slot] = open_descriptor(spec, rights, is_local)
    except ServedFileError:
        pass
    except StepError as error:
        log.warning("%s: %s stays as it was: %s", name, spec.path or spec.kind, error)


class Owner(Protocol):
    """The manager of the units."""

    loop: Loop
    children: Children
    host: HostFacts

    def succeed(self, unit: Unit, opened: dict[Slot, Opened]) -> None:
        """Replace descriptors by `opened` once the process is gone."""

    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None: ...


class Draining:
    """Wait, in step `drain` of a life, until no client waits any more on sockets that are being replaced.

    New sockets are bound first, so clients connect to these from then on. The time limit is that of the life.
    """

    def __init__(self, owner: Owner, unit: Unit) -> None:
        self._owner = owner
        self._unit = unit
        self._run = unit.run
        if self._replaced():
            self._look()  # a reload has bound the new sockets
        else:
            inspect_paths(owner.loop, owner.children, marks_of([unit]), self._seen)

    def _is_over(self) -> bool:
        life = self._unit.life
        return self._unit.run is not self._run or life.state is not State.STOPPING or life.step is not Step.DRAIN

    def _seen(self, sights: Sights) -> None:
        if self._is_over():
            return
        unit, opened = self._unit, dict[Slot, Opened]()
        is_local = self._owner.host.closer.file_systems.have
        seen = still_seen(unit, sights)
        for slot, old in unit.table:
            is_gone = old.spec.kind in UNIX and slot in seen and seen[slot].has_room
            if is_gone or is_displaced(old):
                open_successor(unit.name, slot, old.spec, rights_of(unit.service), opened, is_local)
        self._owner.succeed(unit, opened)
        self._look()

    def _look(self) -> None:
        if self._is_over():
            return
        if any(has_waiting(opened) for opened in self._replaced()):
            self._owner.loop.call_later(POLL, self._look)
        else:
            self._owner.event(self._unit, machine.drained)

    def _replaced(self) -> list[Opened]:
        """Return the sockets of the present process that will be replaced by others at the same places."""
        pending = self._unit.pending
        successors = [opened.spec for opened in pending.opened.values()] if pending is not None else []
        return [opened for _slot, opened in self._unit.table if opened.spec in successors]
