"""The facts that the next worker of a namespace has to know: in a memory file that spawnd holds meanwhile.

Each line is a JSON object, and the last whole one counts: a worker that is killed while it writes leaves the one
before.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

LONGEST = 1 << 18  # bytes; then the file begins anew
MAX_REPAIRS = 100  # that are remembered


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of missing parts, with its Unix time; `problem` says why it failed, where it did."""

    time: float
    missing: list[str]
    did: list[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The options of the plan that is in force, and whether the setup has been run to its end.

    None: nothing is known, the namespace may have been made by others.  `repaired` is the number of all repairs,
    `repairs` are the latest.  `made` are the kinds of objects that unfinished starts have made: they are removed
    unless a start comes to its end.
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
    """The memory file `fd`, which stays the caller's; `facts` are the last ones in it."""

    def __init__(self, fd: int) -> None:
        self.facts = _read(fd)
        self._fd = fd

    def write(self, facts: Facts) -> None:
        """Have the facts survive this process."""
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
    except (ValueError, TypeError, KeyError, AttributeError):  # another version wrote it: nothing is known
        return Facts()


def _facts(found: dict[str, Any]) -> Facts:
    """Read the facts; fields of another version are left out."""
    known = {key: value for key, value in found.items() if key in Facts.__slots__}
    repairs = tuple(Repair(**repair) for repair in found["repairs"])
    return Facts(**known | {"repairs": repairs, "made": tuple(found.get("made", ()))})
