"""The transient scope in which services live where systemd is process 1: systemd.scope(5).

spawnd's own unit is no place for them: once controllers are enabled below its cgroup, systemd
cannot start a new main process there.  A scope beside it outlives spawnd, with all limits in
it.  It is delegated, so that systemd touches nothing below it, and systemd removes it as soon
as it runs empty: a process that only sleeps, the keeper, is in a leaf of its own.

`systemd-run` makes it.  It speaks to systemd's private socket, so that no message bus has to
run, it waits until the scope is there, and the process that asked becomes the keeper.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress

from supervisor.linux.cgroup2 import mount_points
from supervisor.linux.descriptors import close_range
from supervisor.process.cgroup import Leaf, Subtree
from supervisor.process.delegation import SYSTEMD_RUNS, cgroup_of, is_delegated, own_cgroup
from supervisor.process.fork import default_signals
from supervisor.process.scheduling import write_once
from supervisor.process.step import step

NAME = "spawnd-services"
UNIT = "spawnd.service"  # as it is shipped
SYSTEM_SLICE = "system.slice"
KEEPER = "_keeper"  # no service's leaf begins with a single `_`
SYSTEMD_RUN = "/usr/bin/systemd-run"
SLEEP = "/bin/sleep"
# systemd-run tells what is wrong on stderr; that this is closed says that the keeper is there
KEEP = ("/bin/sh", "-c", f"exec {SLEEP} infinity 2>/dev/null")
LAST_FD = 2**32 - 1


def can_have_scope() -> bool:
    """Whether systemd is process 1, would do what we say, and a cgroup2 is to be seen."""
    return os.geteuid() == 0 and os.path.isdir(SYSTEMD_RUNS) and own_cgroup() is not None


def scope_name(folder: str, system_folder: str) -> str:
    """The scope of the spawnd with this run-time folder: each has one of its own, that of the system the plain name."""
    if folder == system_folder:
        return f"{NAME}.scope"
    return f"{NAME}-{zlib.crc32(os.fsencode(folder)):08x}.scope"


def find_scope(name: str) -> str | None:
    """The folder of the scope `name`, in whichever slice.

    None where it is not there, or without a process: systemd is about to remove it then.
    """
    for point in mount_points():
        for folder in _slices(point):
            path = f"{folder}/{name}"
            if is_delegated(path) and Leaf(Subtree(path), path).is_populated():
                return path
    return None


def _slices(folder: str) -> Iterator[str]:
    yield folder
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".slice"):
                yield from _slices(entry.path)


def make_scope_command(name: str, folder: str) -> tuple[str, ...]:
    """The command that makes the scope and stays in it as its keeper; `folder` is the run-time folder.

    Without `Before=` systemd would end services at a shutdown of the host while spawnd stops them
    in order.  A scope has DefaultTasksMax= unless it says otherwise.
    """
    slice_name, unit = place_of(cgroup_of("self") or "")
    before = dict.fromkeys((UNIT, unit or UNIT))
    properties = ("Delegate=yes", "TasksMax=infinity", f"Before={' '.join(before)}")
    return (
        SYSTEMD_RUN,
        "--scope",
        "--quiet",
        "--collect",
        f"--unit={name}",
        f"--slice={slice_name}",
        f"--description=Services of spawnd, {folder}",
        *(f"--property={each}" for each in properties),
        "--",
        *KEEP,
    )


def place_of(cgroup: str) -> tuple[str, str]:
    """Slice and service of systemd's that a process in `cgroup` belongs to: ('system.slice', '') where to none."""
    *slices, unit = cgroup.strip("/").split("/")
    if not unit.endswith(".service") or not all(each.endswith(".slice") for each in slices):
        return SYSTEM_SLICE, ""  # of a session, or of a user's own systemd
    return (slices[-1] if slices else "-.slice"), unit


def keeper_of(path: str) -> int | None:
    """The pid of the keeper of the scope in folder `path`, None where it has none."""
    with suppress(OSError), open(f"{path}/{KEEPER}/cgroup.procs", encoding="ascii") as procs:
        return next((int(line) for line in procs), None)
    return None


def settle_keeper(path: str, pid: int) -> None:
    """Move the keeper to its leaf: there are no processes in inner cgroups.  Raises StepError."""
    leaf = f"{path}/{KEEPER}"
    with step("make cgroup", leaf), suppress(FileExistsError):
        os.mkdir(leaf)
    with step("move the keeper to", leaf):
        write_once(f"{leaf}/cgroup.procs", str(pid))


def be_keeper(path: str) -> None:
    """Become the keeper of a scope that has none.  To be called in a forked child; never comes back."""
    os.setsid()
    default_signals()
    settle_keeper(path, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    close_range(3, LAST_FD)
    os.execve(SLEEP, ("sleep", "infinity"), {})  # noqa: S606  # no shell is the point
