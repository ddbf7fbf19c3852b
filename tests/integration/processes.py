"""The kernel's view of the processes of a test."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.daemon import Daemon, start_time, wait_until


def links(pid: int) -> dict[int, str]:
    """Return the targets of a process's descriptors by number."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    return start_time(pid) is not None


def started(pid: int) -> int:
    """When a process that lives was started, in clock ticks since boot."""
    found = start_time(pid)
    assert found is not None
    return found


def wait_reaped(pid: int) -> None:
    """Wait until process 1 has reaped an orphan: as a zombie it still holds its number, and that of its session."""
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "process 1 to reap it")


def dated(daemon: Daemon) -> int:
    """When the state file said last that all it says is true, in clock ticks since boot."""
    records = [json.loads(line) for line in (daemon.runtime / "state").read_bytes().split(b"\n")[:-1]]
    return max((record["at"] for record in records if "at" in record), default=0)


def with_argument(argument: str | Path) -> list[int]:
    """The living processes that have been given this argument, which is the test's own."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0") if entry.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(argument).encode() in arguments and alive(int(entry)):
            found.append(int(entry))
    return found
