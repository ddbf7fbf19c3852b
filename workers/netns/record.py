"""The facts that the next worker of a namespace needs, in a memory file that spawnd holds meanwhile.

Each line is a JSON object, and the last complete one counts: a worker that is killed during a write leaves
the previous one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

LONGEST = 1 << 18  # bytes; after that the file begins anew
MAX_REPAIRS = 100  # repairs that are remembered


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of missing parts, with its Unix time; `problem` says why it failed, or is ''."""

    time: float
    missing: list[str]
    did: list[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The options of the plan in force, and whether the setup has been finished.

    None stands for unknown: another program may have made the namespace. `repaired` is the number of all
    repairs, `repairs` has the latest. `made` has the kinds of objects that unfinished starts have made: they
    are removed unless a start finishes.
    """

    options: dict[str, Any] | None = None
    is_set_up: bool | None = None
    repairs: tuple[Repair, ...] = ()
    repaired: int = 0
    made: tuple[str, ...] = ()

    def with_repair(self, repair: Repair) -> Facts:
        repairs = (*self.repairs, repair)[-MAX_REPAIRS:]
        return replace(self, repairs=repairs, repaired=self.repaired + (not repair.problem))

    def with_made(self, kind: str) -> Facts:
        return self if kind in self.made else replace(self, made=(*self.made, kind))


class Record:
    """The memory file `fd`, which the caller still owns; `facts` are the last ones in it."""

    def __init__(self, fd: int) -> None:
        self.facts = _read(fd)
        self._fd = fd

    def write(self, facts: Facts) -> None:
        """Save the facts beyond the life of this process."""
        self.facts = facts
        line = json.dumps(asdict(facts))
        size = os.fstat(self._fd).st_size
        if size > LONGEST:
            os.ftruncate(self._fd, 0)
            size = 0
        os.pwrite(self._fd, line.encode() + b"\n", size)


def _read(fd: int) -> Facts:
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    whole, _, _rest = data.rpartition(b"\n")
    if not whole:
        return Facts()
    try:
        return _facts(json.loads(whole.rpartition(b"\n")[2]))
    except (ValueError, TypeError, KeyError, AttributeError):  # written by another version: nothing is known
        return Facts()


def _facts(found: dict[str, Any]) -> Facts:
    """Return the facts without the fields of another version."""
    known = {key: value for key, value in found.items() if key in Facts.__slots__}
    repairs = tuple(Repair(**repair) for repair in found["repairs"])
    return Facts(**known | {"repairs": repairs, "made": tuple(found.get("made", ()))})
