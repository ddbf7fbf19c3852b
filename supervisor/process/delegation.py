"""Finding the subtree of cgroup v2 in which spawnd may make the cgroups of services.

Either the operator names it, or spawnd was started in one: its cgroup says so by the
extended attribute `user.delegate` or `trusted.delegate`, as systemd sets them
(https://systemd.io/CGROUP_DELEGATION).  Where systemd is process 1, the cgroup that spawnd
was started in is the unit's own and not to be built upon: there it is a scope, see
`supervisor/process/scope.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os

from supervisor.errors import StepError
from supervisor.linux.cgroup2 import mount_points
from supervisor.process.cgroup import OWN_LEAF, Subtree
from supervisor.process.scheduling import write_once
from supervisor.process.step import failed, step

SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
DELEGATE = ("user.delegate", "trusted.delegate")


def find_delegated(path: str) -> Subtree | None:
    """The subtree at `path`, a folder below the mount point of cgroup2, or where `path` is '' the one spawnd is in.

    None where there is none.  spawnd leaves the subtree's own folder for a leaf of its own
    if it is in there.  Raises StepError for a `path` that will not do.
    """
    own = own_cgroup()
    found = _check(path) if path else _delegated(own)
    if found is None:
        return None
    if own == found:
        _move_out(found)
    return use_subtree(found)


def use_subtree(path: str) -> Subtree:
    """The subtree at `path`; memory is counted in its leaves where that can be had."""
    subtree = Subtree(path)
    with contextlib.suppress(StepError):  # others' processes are in there: no controllers, all else works
        subtree.enable(["memory"])
    return subtree


def own_cgroup() -> str | None:
    """The folder of the cgroup v2 that this process is in; None where none is mounted or it is out of sight."""
    own = cgroup_of("self")
    return folder_of(own) if own is not None else None


def cgroup_of(pid: int | str) -> str | None:
    """The cgroup v2 of a process, as `/proc/PID/cgroup` has it; None where there is no such process or cgroup."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as cgroups:
            return next((line[3:].rstrip("\n") for line in cgroups if line.startswith("0::")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def folder_of(cgroup: str) -> str | None:
    """Where a cgroup is to be seen; None where no mount shows it."""
    for point, root in mount_points().items():
        below = root.rstrip("/")
        if cgroup == root or cgroup.startswith(f"{below}/"):
            return f"{point}{cgroup[len(below) :]}".rstrip("/")
    return None


def _check(path: str) -> str:
    path = os.path.normpath(path)
    if not any(path.startswith(f"{point}/") for point in mount_points()):
        raise failed("use cgroup", path, errno.EINVAL, "not below the mount point of a cgroup2 file system")
    with step("make cgroup", path):
        os.makedirs(path, exist_ok=True)
    return path


def _delegated(own: str | None) -> str | None:
    if own is None or os.path.isdir(SYSTEMD_RUNS):
        return None
    parent, name = os.path.split(own)
    if name == OWN_LEAF and is_delegated(parent):
        return parent  # spawnd has moved there before it executed itself anew
    return own if is_delegated(own) else None


def is_delegated(folder: str) -> bool:
    """Whether whoever made the cgroup left what is below it to who is in it."""
    for attribute in DELEGATE:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, attribute) == b"1":
                return True
    return False


def _move_out(folder: str) -> None:
    leaf = f"{folder}/{OWN_LEAF}"
    with step("make cgroup", leaf), contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    with step("enter cgroup", leaf):
        write_once(f"{leaf}/cgroup.procs", "0")
