"""Ending processes that are nobody's main process, where there is no cgroup to do it.

spawnd is a child subreaper, so whatever services left behind is among its descendants, and
nothing else is; but for services of an earlier spawnd, whose orphans went to process 1.  A
process is known by pid and start time and is killed through a pidfd, so that a pid that was
used again meanwhile is never hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

PASSES = 16  # a process that forks while it is hunted leaves new ones behind; each pass takes a generation
STAT_MAX = 4096  # bytes: some fifty numbers and a name, which the kernel gives in one piece


class Process(NamedTuple):
    """A line of `/proc/PID/stat`, as far as it matters; `started` is in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int


def kill_sessions(sessions: Collection[int], spare: Collection[int]) -> None:
    """KILL to every descendant in one of `sessions`; `spare` are sessions that are somebody's now."""
    _kill_all(lambda: [p for p in _descendants() if p.session in sessions and p.session not in spare])


def has_orphans(known: Collection[int]) -> bool:
    """Whether a child of this process is not among the known ones: what is left behind comes to it, or is below such.

    A look at this is much cheaper than one at all processes.  True where the kernel does not tell.
    """
    try:
        with open("/proc/thread-self/children", "rb") as file:
            children = file.read().split()
    except OSError:
        return True  # CONFIG_PROC_CHILDREN
    return any(int(pid) not in known for pid in children)


def kill_descendants() -> None:
    """KILL to every descendant of this process."""
    _kill_all(_descendants)


def kill_group(leader: int, started: int) -> None:
    """KILL to the process group of a leader that is no child of ours, and is about to end or has just ended."""
    _kill_all(lambda: _group(leader, started))


def group_lives(leader: int, started: int) -> bool:
    """Whether anything is left of the process group of such a leader."""
    return bool(_group(leader, started))


def _group(leader: int, started: int) -> list[Process]:
    """The kernel does not give the number of a group that has members to a new process: where
    that of the leader is another's by now, nothing is left of the group.
    """
    everybody = list(_everybody())
    if any(process.pid == leader and process.started != started for process in everybody):
        return []
    return [process for process in everybody if process.group == leader and process.state not in "ZX"]


# What an earlier spawnd left behind is not among our descendants.  A session is known by its number,
# which is free for anybody once nobody is in it; so it has to be shown that it never was.


def processes_in(session: int) -> dict[int, int]:
    """Pids and start times of all in the session of a leader that lives, or has ended at this moment."""
    return {process.pid: process.started for process in _everybody() if process.session == session}


def look_at_all() -> list[Process]:
    """All processes that there are: a look that takes long where there are many, so that it is taken once for all."""
    return list(_everybody())


def relatives(known: Mapping[int, int], everybody: Sequence[Process]) -> dict[int, int]:
    """Pids and start times of those of `known` that still live, and of all in their sessions."""
    sessions = {process.session for process in everybody if known.get(process.pid) == process.started}
    return {process.pid: process.started for process in everybody if process.session in sessions}


def left_by(
    leader: int, started: int, before: int, everybody: Sequence[Process], is_its: Callable[[int], bool]
) -> dict[int, int]:
    """Pids and start times of what is left of the session of a leader that ended unseen, after the time `before`.

    Who is in the session, and was there when the leader had not ended, or has something that was
    the leader's alone (`is_its`), shows that its number was never free: nobody can enter a
    session that is there already.  Without such a one the others may be anybody's, and are left
    out.  `before` is in clock ticks since boot; `everybody` was looked at after that end.
    """
    if any(process.pid == leader and process.started != started for process in everybody):
        return {}
    members = {process.pid: process.started for process in everybody if process.session == leader}
    shown = any(at < before for at in members.values()) or any(map(is_its, members))
    return members if shown else {}


def still_living(processes: Mapping[int, int]) -> dict[int, int]:
    """Those of `processes`, pids and start times, that have not ended."""
    found = ((started, read_process(pid)) for pid, started in processes.items())
    return {p.pid: started for started, p in found if p is not None and p.started == started and p.state not in "ZX"}


def kill_processes(processes: Mapping[int, int]) -> None:
    """KILL to processes that are known by pid and start time, and to their descendants."""

    def living() -> list[Process]:
        everybody = list(_everybody())
        known = [process for process in everybody if processes.get(process.pid) == process.started]
        return known + _below([process.pid for process in known], everybody)

    _kill_all(living)


def _kill_all(find: Callable[[], list[Process]]) -> None:
    for _ in range(PASSES):
        found = [process for process in find() if process.state not in "ZX"]
        if not found:
            return
        for process in found:
            _kill(process)


def _kill(process: Process) -> None:
    # not permitted: a set-uid program of a spawnd that is not root
    with suppress(ProcessLookupError, PermissionError):
        pidfd = os.pidfd_open(process.pid)
        try:
            again = read_process(process.pid)
            if again is not None and again.started == process.started:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _descendants() -> list[Process]:
    return _below([os.getpid()], _everybody())


def _everybody() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        process = read_process(int(entry)) if entry.isdigit() else None
        if process is not None:
            yield process


def _below(pids: Iterable[int], everybody: Iterable[Process]) -> list[Process]:
    by_parent: dict[int, list[Process]] = {}
    for process in everybody:
        by_parent.setdefault(process.parent, []).append(process)
    result: list[Process] = []
    todo = list(pids)
    while todo:
        children = by_parent.get(todo.pop(), [])
        result += children
        todo += [child.pid for child in children]
    return result


def start_time(pid: int) -> int:
    """When a process that is not reaped yet was started, in clock ticks since boot."""
    process = read_process(pid)
    return process.started if process is not None else 0


def read_process(pid: int) -> Process | None:
    """What the kernel says of a process, None where there is none.  Format: proc(5)."""
    try:
        # no file object: to open one takes twice as long as all of this, and there may be thousands
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, STAT_MAX)
        finally:
            os.close(fd)
    except OSError:
        return None  # gone, or hidden from us as nobody of ours is: proc(5), hidepid
    # the name may hold anything, so count from its closing bracket: field 3 follows it
    fields = data.rpartition(b")")[2].split(None, 20)
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))
