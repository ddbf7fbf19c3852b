"""Processes by pid and start time: read from `/proc`, held by pidfds and signalled, and process groups.

A process is known by pid and start time and is signalled through a pidfd, so that a pid that was used again meanwhile
is never hit.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from supervisor.linux.glance import CONTENT, glance
from supervisor.log.logger import log

PASSES = 16  # a process that forks while it is hunted leaves new ones behind; each pass takes a generation
STAT_MAX = 4096  # bytes: some fifty numbers and a name, which the kernel gives in one piece
AT_ONCE = 64  # processes that are held at the same time


class Process(NamedTuple):
    """A line of `/proc/PID/stat`, as far as it matters; `started` is in clock ticks since boot.

    `state` is "Z" only where no thread of it is left.  A process that keeps its `stat` to itself has a negative
    `started`, which is equal to no other: nothing is proved of such a process, and so nothing is done to it.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int


def look_at_all() -> list[Process]:
    """All processes that there are: a look that takes long where there are many, so that it is taken once for all."""
    return read_processes([int(entry) for entry in os.listdir("/proc") if entry.isdigit()])


def read_process(pid: int) -> Process | None:
    """The kernel's facts about a process, None where there is none.  Format: proc(5)."""
    return next(iter(read_processes([pid])), None)


def read_processes(pids: Collection[int]) -> list[Process]:
    """Read all of these that there are, which takes much less than one after the other."""
    try:
        answers = glance([f"{CONTENT}/proc/{pid}/stat" for pid in pids])
    except OSError as error:  # there is no child to be had
        log.warning("cannot look at processes: %s", error.strerror)
        answers = [errno.EBUSY] * len(pids)
    found: list[Process] = []
    for pid, answer in zip(pids, answers, strict=True):
        if isinstance(answer, bytes):
            found.append(_of_stat(pid, answer))
        elif answer in (errno.ETIMEDOUT, errno.EBUSY):  # else it is gone, or hidden as nobody of ours is: hidepid
            if answer == errno.ETIMEDOUT:
                log.warning("process %d does not show what it is, perhaps in an exec that hangs; leaving it alone", pid)
            with suppress(OSError):
                found.append(_of_status(pid))
    return found


def _of_stat(pid: int, data: bytes) -> Process:
    # the name may hold anything, so count from its closing bracket: field 3 follows it
    fields = data.rpartition(b")")[2].split(None, 20)
    state = fields[0].decode()
    if state == "Z" and int(fields[17]) > 1:
        state = "S"  # its first thread has ended, and others go on
    return Process(pid, state, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def _of_status(pid: int) -> Process:
    """The facts that a process cannot hide: all but its start time.  Raises OSError."""
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        status = dict(line.split(b":\t", 1) for line in file.read(STAT_MAX).splitlines() if b":\t" in line)
    state, parent = status[b"State"][:1].decode(), int(status[b"PPid"])
    if state == "Z" and int(status[b"Threads"]) > 1:
        state = "S"
    return Process(pid, state, parent, os.getpgid(pid), os.getsid(pid), -time.monotonic_ns())


def runs_as(pid: int, uid: int) -> bool:
    """Return whether a process has no user id but this one, as a set-user-ID program has; False where it is gone."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        for line in file.read(STAT_MAX).splitlines():
            if line.startswith(b"Uid:"):
                return {int(each) for each in line.split()[1:]} == {uid}
    return False


def start_time(pid: int) -> int:
    """When a process that is not reaped yet was started, in clock ticks since boot."""
    process = read_process(pid)
    return process.started if process is not None else 0


def start_time_before_exec(pid: int) -> int:
    """Return the start time of this process itself, or of a child of it that has executed no program yet.

    An exec that hangs would block the read: no other process is asked here.  0 where the process is gone.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _of_stat(pid, os.read(fd, STAT_MAX)).started
        finally:
            os.close(fd)
    except OSError:
        return 0  # gone


def still_living(processes: Mapping[int, int]) -> dict[int, int]:
    """Those of `processes`, pids and start times, that have not ended, as far as they show that."""
    found = ((processes[process.pid], process) for process in read_processes(processes))
    return {p.pid: started for started, p in found if p.state not in "ZX" and (p.started == started or p.started < 0)}


def still_themselves(processes: Mapping[int, int]) -> set[int]:
    """The pids of those that have not been reaped, whose numbers so were theirs all the time."""
    return {process.pid for process in read_processes(processes) if process.started == processes[process.pid]}


def hold_all(processes: Mapping[int, int]) -> dict[int, int]:
    """Pidfds by pid, the caller's, of those that have not ended and show that they are the ones.  Raises OSError."""
    pidfds: dict[int, int] = {}
    proved: set[int] = set()
    try:
        for pid in processes:
            with suppress(ProcessLookupError):
                pidfds[pid] = os.pidfd_open(pid)
        # a pid that is held may still be another's by now, but then that has another start time
        proved = {process.pid for process in read_processes(pidfds) if process.started == processes[process.pid]}
    finally:
        for pid in pidfds.keys() - proved:
            os.close(pidfds.pop(pid))
    return pidfds


def signal_processes(processes: Mapping[int, int], signum: int) -> None:
    """A signal to processes that are known by pid and start time, once each; a stopped one is to hear it, too."""
    rest = iter(processes.items())
    while some := dict(islice(rest, AT_ONCE)):
        held = hold_all(some)
        try:
            for pidfd in held.values():
                _signal(pidfd, signum)
        finally:
            for pidfd in held.values():
                os.close(pidfd)


def _signal(pidfd: int, signum: int) -> None:
    # not permitted: a set-uid program of a spawnd that is not root
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signum)
        if signum != signal.SIGKILL:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)


def kill_all(find: Callable[[], list[Process]]) -> None:
    """KILL to all that `find` finds, and to those that it finds afterwards."""
    for _ in range(PASSES):
        living = [process for process in find() if process.state not in "ZX" and process.started >= 0]
        found = {process.pid: process.started for process in living}
        if not found:
            return
        signal_processes(found, signal.SIGKILL)


# process groups of main processes, where there is no cgroup: killed, stopped and continued by what is in them


def kill_group(leader: int, started: int) -> None:
    """KILL to the process group of a leader that is no child of ours, and is about to end or has just ended."""
    kill_all(lambda: _group(leader, started))


def group_lives(leader: int, started: int) -> bool:
    """Whether anything is left of the process group of such a leader."""
    return bool(_group(leader, started))


def stop_group(leader: int, started: int) -> bool:
    """STOP to all of such a group that run; returns whether all are stopped.  Raises OSError.

    Nobody is stopped once the leader has been reaped: its number may be another's.
    A process that forks may leave a new one behind, so the answer counts that comes after the last signal.
    """
    group = _group(leader, started)
    if start_time(leader) != started:
        return False
    running = {process.pid: process.started for process in group if process.state not in "Tt"}
    _send(running, signal.SIGSTOP)
    return bool(group) and not running


def continue_group(leader: int, started: int) -> None:
    """CONT to all of such a group.  Raises OSError."""
    _send({process.pid: process.started for process in _group(leader, started)}, signal.SIGCONT)


def _send(processes: Mapping[int, int], signum: int) -> None:
    held = hold_all(processes)
    try:
        for pidfd in held.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signum)
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _group(leader: int, started: int) -> list[Process]:
    """The kernel does not give the number of a group that has members to a new process: where
    that of the leader is another's by now, nothing is left of the group.
    """
    everybody = look_at_all()
    if any(process.pid == leader and process.started != started for process in everybody):
        return []
    return [process for process in everybody if process.group == leader and process.state not in "ZX"]


def has_child_in_group(leader: int) -> bool:
    """Whether a living child of ours is in the process group of a leader that is dead and not reaped."""
    try:
        os.waitid(os.P_PGID, leader, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)  # dead ones are none to wait for a stop of
    except ChildProcessError:
        return False
    return True
