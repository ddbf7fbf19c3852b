"""Why a supervisor does not answer: what is known of its process, and what to do."""

from __future__ import annotations

import os
import sys

from supervisor.linux.cgroup2 import mount_points
from supervisor.printable import printable, quoted


def tell_of_silence(path: str, pid: int) -> None:
    """Say on stderr that the supervisor at `path`, process `pid`, does not answer; 0: its process is out of sight."""
    who = f"the supervisor at {quoted(path)}" + (f" (pid {pid})" if pid else "")
    text = f"spawnctl: {who} does not answer{_reason(pid)}. Still waiting; Ctrl-C ends the wait."
    print(printable(text), file=sys.stderr, flush=True)


def _reason(pid: int) -> str:
    frozen = _frozen_by(pid)
    if frozen:
        return f": its cgroup is frozen; \"echo 0 > {frozen}/cgroup.freeze\" lets it go on"
    match _state(pid):
        case "T":
            return f': it is stopped; "kill -CONT {pid}" lets it go on'
        case "t":
            return ": a debugger has stopped it, and lets it go on"
        case "D":
            return f': it is in an uninterruptible call of the kernel; "cat /proc/{pid}/stack" tells root in which'
        case "R":
            return ": it is busy"
        case "Z":
            return ": it has ended, and nobody has reaped it"
    return ""


def _state(pid: int) -> str:
    """The letter of a process, proc_pid_status(5); empty where nothing is known of it."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            line = next(line for line in status if line.startswith(b"State:"))
    except (OSError, StopIteration):
        return ""
    return line.split()[1].decode("ascii", "replace")


def _frozen_by(pid: int) -> str:
    """The folder of the cgroup at or above that of a process that somebody has frozen; empty where none is."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
            cgroup = next(line[3:].rstrip("\n") for line in lines if line.startswith("0::"))
        points = mount_points()
    except (OSError, StopIteration):
        return ""
    for point, root in points.items():
        below = root.rstrip("/")
        if cgroup == root or cgroup.startswith(f"{below}/"):
            return _first_frozen(point, cgroup[len(below) :])
    return ""


def _first_frozen(point: str, path: str) -> str:
    while path.strip("/"):
        folder = f"{point}{path}".rstrip("/")
        try:
            with open(f"{folder}/cgroup.freeze", "rb") as file:
                if file.read().strip() == b"1":
                    return folder
        except OSError:
            pass
        path = os.path.dirname(path.rstrip("/"))
    return ""
