"""What the kernel counts for a cgroup: its Documentation/admin-guide/cgroup-v2.rst.

All files are read through a descriptor of the folder, so that they are this cgroup's and not
those of another one that has its name by now.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

_READ = os.O_RDONLY | os.O_CLOEXEC
SIZE = 4096  # bytes; the longest of these files, cpu.stat, has some 300
# by controller, the file that each kernel has of it first; cpu.stat needs none
FILES = {b"memory": ("memory.events", "memory.peak"), b"pids": ("pids.events", "pids.peak", "pids.forks")}


class Statistics(NamedTuple):
    """Times are microseconds, memory bytes, all else numbers; None where the kernel does not count it."""

    cpu_total_us: int | None = None
    cpu_user_us: int | None = None
    cpu_system_us: int | None = None
    memory_peak: int | None = None
    memory_events_high: int | None = None
    memory_events_max: int | None = None
    memory_events_oom: int | None = None
    pids_peak: int | None = None
    pids_forks: int | None = None
    pids_events_max: int | None = None


class Events(NamedTuple):
    """`populated`: a process is in the cgroup or below."""

    populated: bool
    frozen: bool


class Reading(NamedTuple):
    """What the files of a cgroup say, those that there are by their names."""

    contents: dict[str, bytes]

    def statistics(self) -> Statistics:
        get = self.contents.get
        cpu = _flat_keyed(get("cpu.stat"))
        times = _number(cpu.get(b"usage_usec")), _number(cpu.get(b"user_usec")), _number(cpu.get(b"system_usec"))
        if len(self.contents) == 1:
            return Statistics(*times)
        memory = _flat_keyed(get("memory.events"))
        return Statistics(
            *times,
            _number(get("memory.peak")),
            _number(memory.get(b"high")),
            _number(memory.get(b"max")),
            _number(memory.get(b"oom")),
            _number(get("pids.peak")),
            _number(get("pids.forks")),
            _number(_flat_keyed(get("pids.events")).get(b"max")),
        )

    def again(self, folder: int) -> Reading | None:
        """Read the same files anew: which ones a cgroup has does not change while it is empty."""
        return _checked({name: _read(folder, name) for name in self.contents})


def read(folder: int, controllers: Collection[bytes] = FILES.keys()) -> Reading | None:
    """Read the cgroup whose folder `folder` refers to; None where it has been deleted.

    `controllers` are those that it may have.  Raises OSError, EMFILE and ENFILE.
    """
    contents = {"cpu.stat": _read(folder, "cpu.stat")}
    for controller, (first, *others) in FILES.items():
        if controller in controllers and (data := _read(folder, first)):
            contents[first] = data
            for name in others:
                if data := _read(folder, name):
                    contents[name] = data
    return _checked(contents)


def read_controllers(path: str, above: int | None = None) -> Collection[bytes]:
    """Those that the children of the cgroup at `path` have, as of `read`.

    `above` is the folder that a relative path begins at.  Raises OSError, EMFILE and ENFILE.
    """
    return _read(above, f"{path}/cgroup.subtree_control").split()


def _checked(contents: dict[str, bytes]) -> Reading | None:
    return Reading(contents) if contents.get("cpu.stat") else None  # every cgroup has that file


def shows_use(folder: int) -> bool:
    """Whether a process has ever been in a cgroup: one that ends in there has used some time, however short.

    Not so one that was moved in and out again: `pids.peak` tells of that, where there is one.

    `folder` is its folder.  False where it has been deleted.  Raises OSError, EMFILE and ENFILE.
    """
    usage = _flat_keyed(_read(folder, "cpu.stat")).get(b"usage_usec")
    return bool(_number(usage)) or bool(_number(_read(folder, "pids.peak")))


def read_events(path: str, above: int | None = None) -> Events | None:
    """What `cgroup.events` of the cgroup at `path` says; None where there is no such cgroup.

    `above` is the folder that a relative path begins at.  Raises OSError, EMFILE and ENFILE.
    """
    data = _read(above, f"{path}/cgroup.events")
    return Events(b"populated 1" in data, b"frozen 1" in data) if data else None


def _read(folder: int | None, name: str) -> bytes:
    """A file of a cgroup; empty where the kernel has none."""
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, SIZE)
    except OSError:  # ENODEV: deleted meanwhile
        return b""
    finally:
        os.close(fd)


def _flat_keyed(data: bytes | None) -> dict[bytes, bytes]:
    """What `KEY NUMBER` lines say."""
    fields = data.split() if data else ()
    return dict(zip(fields[::2], fields[1::2], strict=False))


def _number(data: bytes | None) -> int | None:
    return int(data) if data and (data := data.strip()).isdigit() else None
