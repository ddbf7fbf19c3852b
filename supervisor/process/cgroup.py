"""The cgroups of services: one leaf each in a delegated subtree of cgroup v2, cgroups(7).

The subtree's own folder holds no process, or the kernel would not let controllers be
enabled in it.  Cgroups outlive spawnd: nothing here holds more than a path.  Formats of the
files: the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from typing import NamedTuple

from supervisor.errors import StepError
from supervisor.process.cgroup_kill import kill_all
from supervisor.process.resources import RESOURCES
from supervisor.process.scheduling import write_once
from supervisor.process.step import failed, step

OWN_LEAF = "spawnd"  # of spawnd itself, in a subtree that it was started in

# How the kernel's own files in a cgroup begin; a folder of such a name would clash with one, now or later.
_KERNEL_PREFIXES = frozenset(
    {"cgroup", "cpu", "cpuset", "dmem", "hugetlb", "io", "irq", "memory", "misc", "pids", "rdma"}
)


class Statistics(NamedTuple):
    """What a cgroup uses, with all below it; None where the kernel does not count it here."""

    memory_bytes: int | None
    cpu_s: float | None


class Subtree:
    """A delegated cgroup: the parent of the services' leaves.  `path` is its folder.

    `lost`: it may have gone, or be about to, and whoever made it sees to it.
    """

    __slots__ = ("lost", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost = False

    def leaf(self, name: str) -> Leaf:
        """The cgroup of the service `name`, which need not exist yet."""
        return Leaf(self, f"{self.path}/{folder_name(name)}")

    def check(self) -> None:
        """Raise StepError where no service can be started in here for the moment."""
        if self.lost:
            raise failed("use cgroup", self.path, errno.ESTALE, "it may be about to go, and is seen to")

    def enable(self, controllers: Iterable[str]) -> frozenset[str]:
        """Enable controllers for the leaves and return those that this cgroup does not have.

        Raises StepError, EBUSY where there are processes in the subtree's own folder.
        """
        wanted = frozenset(controllers)
        available = frozenset(_read(self.path, "cgroup.controllers").split())
        enabled = frozenset(_read(self.path, "cgroup.subtree_control").split())
        missing = sorted((wanted & available) - enabled)
        path = f"{self.path}/cgroup.subtree_control"
        if missing and _read(self.path, "cgroup.procs"):
            # the kernel would take cpu and pids even so, and make leaves that no process can enter: "threaded" ones
            raise failed(f"enable the {missing[0]} controller", path, errno.EBUSY, "processes are in the inner cgroup")
        for controller in missing:
            with step(f"enable the {controller} controller", path):
                write_once(path, f"+{controller}")
        return wanted - available


class Leaf:
    """The cgroup of one service."""

    __slots__ = ("_subtree", "path")

    def __init__(self, subtree: Subtree, path: str) -> None:
        self._subtree = subtree
        self.path = path

    def prepare(self, resources: dict[str, str]) -> tuple[str, ...]:
        """Make the cgroup where there is none and give it `resources`, and those not in there their defaults.

        Returns a sentence for each resource that this kernel or this cgroup cannot limit.
        Raises StepError where the kernel does not take a value.
        """
        with step("make cgroup", self.path), contextlib.suppress(FileExistsError):
            os.mkdir(self.path)
        notices = self._enable_for(resources)
        for key, resource in RESOURCES.items():
            path = f"{self.path}/{resource.file}"
            if key in resources and not os.path.exists(path):
                notices.setdefault(key, f"{key} needs {resource.file}, which this kernel does not have")
            elif key in resources or _differs(path, resource.default):
                with step(f"set {key}", path):
                    write_once(path, resources.get(key, resource.default))
        return tuple(notices.values())

    def _enable_for(self, resources: dict[str, str]) -> dict[str, str]:
        """Enable what `resources` need; the sentences by resource for what is not to be had."""
        notices = {}
        for key in RESOURCES.keys() & resources.keys():
            controller = RESOURCES[key].controller
            try:
                if self._subtree.enable([controller]):
                    notices[key] = f"{key} needs the {controller} controller, which this cgroup does not have"
            except StepError as error:
                notices[key] = f"{key} needs the {controller} controller: {error}"
        return notices

    def exists(self) -> bool:
        """Whether it is there: a subtree that systemd made may have gone with all that is in it."""
        return os.path.isdir(self.path)

    def kill(self) -> None:
        """KILL to every process in here and below, those that it forks meanwhile included.

        Returns before they are dead.  A cgroup that is gone has none.  Raises StepError.
        """
        kill_all(self.path)

    def is_populated(self) -> bool:
        """Whether any process is left in here or below; a cgroup that is gone has none."""
        return _flat_keyed(self.path, "cgroup.events").get("populated") == 1

    def open_events(self) -> int:
        """`cgroup.events`, close-on-exec, to be polled for EPOLLPRI: `populated` changed.  The caller owns it.

        The kernel tells of the next change only to who has read the last one: see
        `read_populated`.  Raises StepError.
        """
        path = f"{self.path}/cgroup.events"
        with step("open", path):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove it and the cgroups in it, deepest first.  Raises StepError, EBUSY while a process is left."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            with step("remove cgroup", folder), contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)

    def statistics(self) -> Statistics:
        """Memory that its processes use now, and processor time that they have used since it was made."""
        usage = _flat_keyed(self.path, "cpu.stat").get("usage_usec")
        memory = _read(self.path, "memory.current")
        return Statistics(int(memory) if memory else None, None if usage is None else usage / 1e6)

    def oom_kills(self) -> int | None:
        """How many of its processes the kernel killed for want of memory; None without the memory controller."""
        return _flat_keyed(self.path, "memory.events").get("oom_kill")


def read_populated(events_fd: int) -> bool:
    """Like `Leaf.is_populated`, through what `open_events` returned.  Raises OSError."""
    try:
        return b"populated 1" in os.pread(events_fd, 4096, 0)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return False  # the cgroup was removed


def folder_name(name: str) -> str:
    """The folder for the service `name`: the name, escaped by a `_` where it is not free for us to use."""
    if name == OWN_LEAF or name.startswith(("_", ".")) or name.partition(".")[0] in _KERNEL_PREFIXES - {name}:
        return f"_{name}"
    return name


def _differs(path: str, default: str) -> bool:
    """Whether the file is there and says something else, `100000` after `max` of `cpu.max` and `default ` aside."""
    value = _read(*os.path.split(path)).removeprefix("default ")
    return bool(value) and value.split()[0] != default


def _read(folder: str, name: str) -> str:
    """A file of a cgroup; '' where there is none, or no such cgroup any more."""
    try:
        with open(f"{folder}/{name}", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _flat_keyed(folder: str, name: str) -> dict[str, int]:
    """The numbers in a file of `KEY NUMBER` lines; none where there is no such file."""
    pairs = (line.split() for line in _read(folder, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
