"""Diagnosis of a supervisor that does not answer: the state of its process, and the remedy."""

from __future__ import annotations

import os
import sys

from supervisor.places import cgroup2_mounts
from supervisor.printable import printable, quoted


def tell_of_silence(silence: str) -> None:
    """Report on stderr what `describe_silence` says, and that the wait goes on."""
    print(printable(f"spawnctl: {silence}. Still waiting; Ctrl-C ends the wait."), file=sys.stderr, flush=True)


def describe_silence(path: str, pid: int) -> str:
    """Return the state of the silent supervisor at `path`, process `pid` (0: invisible), and the remedy."""
    who = f"the supervisor at {quoted(path)}" + (f" (pid {pid})" if pid else "")
    return f"{who} does not answer{_reason(pid)}"


def _reason(pid: int) -> str:
    frozen = _frozen_by(pid)
    if frozen:
        return f": its cgroup is frozen; \"echo 0 > {frozen}/cgroup.freeze\" resumes it"
    match _state(pid):
        case "T":
            return f': it is stopped; "kill -CONT {pid}" resumes it'
        case "t":
            return ": a debugger has stopped it"
        case "D":
            return f': it is in an uninterruptible call of the kernel; "cat /proc/{pid}/stack" tells root in which'
        case "R":
            return ": it is busy"
        case "Z":
            return ": it has ended, and its parent has not reaped it"
    return ""


def _state(pid: int) -> str:
    """Return the state letter of a process, proc_pid_status(5), or '' if it is unknown."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            line = next(line for line in status if line.startswith(b"State:"))
    except (OSError, StopIteration):
        return ""
    return line.split()[1].decode("ascii", "replace")


def _frozen_by(pid: int) -> str:
    """Return the folder of the frozen cgroup at or above that of a process, or '' if none is frozen."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
            cgroup = next(line[3:].rstrip("\n") for line in lines if line.startswith("0::"))
        points = cgroup2_mounts()
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
