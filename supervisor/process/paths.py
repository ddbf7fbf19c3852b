"""Checks whether the paths of open descriptors still lead to the opened files.

Tools that rotate keys and logs rename files, and socket files get removed. Looking at a path may take for
ever when its file system does not answer, so children do it, never spawnd itself.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from supervisor.definitions.service import Slot
from supervisor.errors import StepError
from supervisor.process.sockets import is_bound

LOOK = "find the table's files at their paths"


class Sight(StrEnum):
    """The state of a path where a file or socket was opened.

    `RENAMED`: nothing there, and the file has another name now, which a look at the path alone cannot tell.
    `TAKEN`: something keeps a socket from being bound there, a bound socket of others or no socket at all.
    `CUT_OFF`: nothing there, and no folder to bind the socket in.
    """

    REPLACED = "replaced"
    DELETED = "deleted"
    RENAMED = "renamed"
    TAKEN = "taken"
    CUT_OFF = "deleted with its directory"

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
    """Return the changes by slot. May block; a path that cannot be looked at counts as unchanged."""
    found = {mark.slot: _look_at(mark) for mark in marks}
    return {slot: sight for slot, sight in found.items() if sight is not None}


def refined(sight: Sight, fd: int) -> Sight:
    """Tell a renamed file from a deleted one, by the kernel's name of the open file. Never blocks."""
    if sight is not Sight.DELETED:
        return sight
    try:
        name = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return sight
    return Sight.RENAMED if name.startswith("/") and not name.endswith(" (deleted)") else sight


def read_moved(failure: StepError | None) -> dict[Slot, Sight]:
    """Return the slots in the failure of a start whose paths lead elsewhere by now; none for any other."""
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
