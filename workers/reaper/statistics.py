"""What the kernel counts for a cgroup: its Documentation/admin-guide/cgroup-v2.rst.

All files are read through a descriptor of the folder, so that they are this cgroup's and not
those of another one that has its name by now.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

SIZE = 4096  # bytes; the longest of these files, cpu.stat, has some 300
# by controller, the file that each kernel has of it first
FILES = (("cpu.stat",), ("memory.events", "memory.peak"), ("pids.events", "pids.peak", "pids.forks"))


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


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files of a cgroup say, those that there are by their names."""

    contents: dict[str, bytes]

    def statistics(self) -> Statistics:
        get = self.contents.get
        cpu = _flat_keyed(get("cpu.stat", b""))
        memory = _flat_keyed(get("memory.events", b""))
        return Statistics(
            cpu.get(b"usage_usec"),
            cpu.get(b"user_usec"),
            cpu.get(b"system_usec"),
            _number(get("memory.peak", b"")),
            memory.get(b"high"),
            memory.get(b"max"),
            memory.get(b"oom"),
            _number(get("pids.peak", b"")),
            _number(get("pids.forks", b"")),
            _flat_keyed(get("pids.events", b"")).get(b"max"),
        )

    def again(self, folder: int) -> Reading | None:
        """Read the same files anew: which ones a cgroup has does not change while it is empty."""
        return _checked({name: _read(folder, name) for name in self.contents})


def read(folder: int) -> Reading | None:
    """Read the cgroup whose folder `folder` refers to; None where it has been deleted.

    Raises OSError, EMFILE and ENFILE.
    """
    contents = {}
    for first, *others in FILES:
        if data := _read(folder, first):
            contents[first] = data
            contents |= {name: data for name in others if (data := _read(folder, name))}
    return _checked(contents)


def _checked(contents: dict[str, bytes]) -> Reading | None:
    return Reading(contents) if contents.get("cpu.stat") else None  # every cgroup has that file


def shows_use(folder: int) -> bool:
    """Whether a process has ever been in a cgroup: one that ends in there has used some time, however short.

    Not so one that was moved in and out again: `pids.peak` tells of that, where there is one.

    `folder` is its folder.  False where it has been deleted.  Raises OSError, EMFILE and ENFILE.
    """
    usage = _flat_keyed(_read(folder, "cpu.stat")).get(b"usage_usec")
    return bool(usage) or bool(_number(_read(folder, "pids.peak")))


def read_events(path: str) -> Events | None:
    """What `cgroup.events` of the cgroup at `path` says; None where there is no such cgroup.

    Raises OSError, EMFILE and ENFILE.
    """
    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    data = _read_and_close(fd)
    return Events(b"populated 1" in data, b"frozen 1" in data) if data else None


def _read(folder: int, name: str) -> bytes:
    """A file of the cgroup; empty where the kernel has none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return b""
    return _read_and_close(fd)


def _read_and_close(fd: int) -> bytes:
    try:
        return os.read(fd, SIZE)
    except OSError:  # ENODEV: deleted meanwhile
        return b""
    finally:
        os.close(fd)


def _flat_keyed(data: bytes) -> dict[bytes, int]:
    """The numbers of `KEY NUMBER` lines."""
    fields = data.split()
    return {key: int(value) for key, value in zip(fields[::2], fields[1::2], strict=False) if value.isdigit()}


def _number(data: bytes) -> int | None:
    data = data.strip()
    return int(data) if data.isdigit() else None
