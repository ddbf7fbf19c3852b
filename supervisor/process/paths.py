"""Whether the paths of open descriptors still lead to what was opened there.

A file may be renamed, as everything that rotates keys and logs does it, and a socket file removed.  A look at a path
may take for ever, when its file system does not answer: so spawnd itself takes none, its children do.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from supervisor.errors import StepError
from supervisor.process.slots import Slot
from supervisor.process.sockets import is_bound

LOOK = "find the table's files at their paths"


class Sight(StrEnum):
    """The finding at a path, in the place of the file or socket that was opened.

    `RENAMED`: nothing, and the file has another name now, which a look at the path alone cannot tell.
    `TAKEN`: something that keeps a socket from being bound there, a living socket of others or no socket at all.
    `CUT_OFF`: nothing, as for a socket there is not even a folder to bind it in.
    """

    REPLACED = "replaced"
    DELETED = "deleted"
    RENAMED = "renamed"
    TAKEN = "taken"
    CUT_OFF = "deleted with its folder"

    @property
    def has_room(self) -> bool:
        """Whether a socket can be bound there."""
        return self not in (Sight.TAKEN, Sight.CUT_OFF)


class Mark(NamedTuple):
    """The file at a path when it was opened, by device and inode."""

    slot: Slot
    path: str
    device: int
    inode: int
    is_socket: bool


def look(marks: Iterable[Mark]) -> dict[Slot, Sight]:
    """Return by slot what has changed.  May block; a path that cannot be looked at counts as unchanged."""
    found = {mark.slot: _look_at(mark) for mark in marks}
    return {slot: sight for slot, sight in found.items() if sight is not None}


def refined(sight: Sight, fd: int) -> Sight:
    """Tell a file that was renamed from one that was deleted, by what the kernel calls the open one.  Never blocks."""
    if sight is not Sight.DELETED:
        return sight
    try:
        name = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return sight
    return Sight.RENAMED if name.startswith("/") and not name.endswith(" (deleted)") else sight


def moved(sights: Mapping[Slot, Sight]) -> StepError:
    """The failure of a start before which paths have come to lead elsewhere, by slot of the table."""
    return StepError(LOOK, "", 0, json.dumps(sights))


def read_moved(failure: StepError | None) -> dict[Slot, Sight]:
    """The slots in such a failure; none in any other."""
    if failure is None or failure.step != LOOK:
        return {}
    return {int(slot): Sight(sight) for slot, sight in json.loads(failure.cause).items()}


def _look_at(mark: Mark) -> Sight | None:
    try:
        status = os.stat(mark.path, follow_symlinks=not mark.is_socket)
    except (FileNotFoundError, NotADirectoryError):
        is_cut_off = mark.is_socket and not os.path.isdir(os.path.dirname(mark.path))
        return Sight.CUT_OFF if is_cut_off else Sight.DELETED
    except OSError:
        return None
    if (status.st_dev, status.st_ino) == (mark.device, mark.inode):
        return None
    is_taken = mark.is_socket and (not stat.S_ISSOCK(status.st_mode) or is_bound(mark.path))
    return Sight.TAKEN if is_taken else Sight.REPLACED
