"""Inspection of the paths of units' files and sockets, in a child: a file system that hangs delays nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from supervisor.definitions.service import Slot
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager.unit import Unit
from supervisor.process.children import AnsweringChild, Children
from supervisor.process.paths import Mark, Sight, look

TIME_LIMIT = 2.0  # seconds; paths that take longer count as unchanged
MOST_TOLD = 8  # services named in a log line

Marks = Mapping[str, tuple[Mark, ...]]
Sights = dict[str, dict[Mark, Sight]]  # by unit: changed paths
Done = Callable[[Sights], None]


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
        if not in_time:
            names = ", ".join(list(marks)[:MOST_TOLD])
            log.warning("paths of %s: no answer from a file system within %g s; what is open stays", names, TIME_LIMIT)
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
