"""Processes by pid and start time: read from `/proc`, held by pidfds and signalled; process groups.

A process is identified by pid and start time and signalled through a pidfd, so that a signal never hits
another process that has the same pid by now.
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

PASSES = 16  # a process that forks while it is hunted leaves new ones behind; each pass kills a generation
STAT_MAX = 4096  # bytes: some fifty numbers and a name, which the kernel returns in one read
TICK = 10**9 // os.sysconf("SC_CLK_TCK")  # nanoseconds
AT_ONCE = 64  # processes held at the same time
# answers of processes that may live: they do not show themselves in time, or the host has no room to look
HIDING = (errno.ETIMEDOUT, errno.EBUSY, errno.ENOMEM, errno.ENFILE)
NOBODY = (errno.ESRCH, errno.EINVAL, errno.ENOENT)  # of pidfd_open(2): the last two for a thread of another process
CPUCLOCK_SCHED = 2  # <linux/posix-timers.h>: the clock of a process, as clock_getcpuclockid(3) returns it


class Process(NamedTuple):
    """The fields of `/proc/PID/stat` that are used here; `started` is in clock ticks since boot.

    `ticks` is its CPU time, with that of its reaped children, `pages` its resident memory.

    `state` is "Z" only if no thread of the process is left. A process that hides its `stat` has a negative
    `started`, unequal to any other. Nothing can be proved of such a process, so it is left alone.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int
    ticks: int = 0
    pages: int = 0


def look_at_all() -> list[Process]:
    """Read all processes. This is slow on large systems, so callers share the result."""
    return read_processes([int(entry) for entry in os.listdir("/proc") if entry.isdigit()])


def read_process(pid: int) -> Process | None:
    """Return the kernel's facts about a process, None if it does not exist. Format: proc(5)."""
    return next(iter(read_processes([pid])), None)


def read_processes(pids: Collection[int]) -> list[Process]:
    """Read these processes as far as they exist, much faster than one by one."""
    try:
        answers = glance([f"{CONTENT}/proc/{pid}/stat" for pid in pids])
    except OSError as error:  # no child can be forked
        log.warning("cannot look at processes: %s", error.strerror)
        answers = [errno.EBUSY] * len(pids)
    found: list[Process] = []
    for pid, answer in zip(pids, answers, strict=True):
        if isinstance(answer, bytes):
            found.append(_of_stat(pid, answer))
        # else the process is gone, or hidden by hidepid, which our own processes never are
        elif answer in HIDING:
            if answer == errno.ETIMEDOUT:
                log.warning("process %d does not show what it is, perhaps in an exec that hangs; leaving it alone", pid)
            with suppress(FileNotFoundError, ProcessLookupError):
                found.append(_of_status(pid))
    return found


def _of_stat(pid: int, data: bytes) -> Process:
    # the name may hold anything, so count from its closing bracket: field 3 follows it
    fields = data.rpartition(b")")[2].split(None, 22)
    state = fields[0].decode()
    if state == "Z" and int(fields[17]) > 1:
        state = "S"  # its first thread has ended, and others go on
    parent, group, session = map(int, fields[1:4])
    ticks = sum(map(int, fields[11:15]))
    return Process(pid, state, parent, group, session, int(fields[19]), ticks, int(fields[21]))


def _of_status(pid: int) -> Process:
    """Return the facts that a process cannot hide: all but its start time. Raises OSError if it is gone.

    If its entry cannot be opened, as without a free descriptor, it counts as living, with an unknown parent.
    """
    state, parent = "?", 0
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            status = dict(line.split(b":\t", 1) for line in file.read(STAT_MAX).splitlines() if b":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        raise
    except OSError:
        pass
    else:
        state, parent = status[b"State"][:1].decode(), int(status[b"PPid"])
        if state == "Z" and int(status[b"Threads"]) > 1:
            state = "S"
    return Process(pid, state, parent, os.getpgid(pid), os.getsid(pid), -time.monotonic_ns())


def runs_as(pid: int, uid: int) -> bool:
    """Return whether `uid` is the only user id of a process: a set-user-ID program has another. False if it is gone."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        for line in file.read(STAT_MAX).splitlines():
            if line.startswith(b"Uid:"):
                return {int(each) for each in line.split()[1:]} == {uid}
    return False


def start_time(pid: int) -> int:
    """Return the start time of a process that is not reaped yet, in clock ticks since boot."""
    process = read_process(pid)
    return process.started if process is not None else 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a living process and its threads. Raises OSError."""
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


def cpu_seconds_of_all(pids: Collection[int]) -> float:
    """Return the CPU time of processes, and of those of their children that have ended and were waited for."""
    answers = glance([f"{CONTENT}/proc/{pid}/stat" for pid in pids])
    found = 0.0
    for pid, answer in zip(pids, answers, strict=True):
        with suppress(OSError):  # it has ended
            found += cpu_seconds(pid)
        if isinstance(answer, bytes):
            ticks = answer.rpartition(b")")[2].split(None, 16)[13:15]
            found += sum(map(int, ticks)) * TICK / 1e9
    return found


def clock_ticks() -> int:
    """Return the time since boot in clock ticks, the unit of start times."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // TICK


def start_time_since(begun: int, pid: int) -> int:
    """Return the start time of a child that was started at `begun` or later, and has executed no program yet.

    Nearly always the clock has not ticked since, so the start time is known without a look.
    """
    return begun if clock_ticks() == begun else start_time_before_exec(pid)


def start_time_before_exec(pid: int) -> int:
    """Return the start time of this process, or of a child of it that has executed no program yet.

    The read would block in an exec that hangs, so other processes must not be read here. 0 if the process is
    gone.
    """
    try:
        return _of_stat(pid, _read(pid, "stat")).started
    except OSError:
        return 0  # the process is gone


def has_memory(pid: int) -> bool:
    """Return whether a child of this process lives: one that is ending gives up its memory before its descriptors.

    The read does not wait for a process in an exec. Without a free descriptor, the child counts as living.
    """
    try:
        return not _read(pid, "statm").startswith(b"0 ")
    except OSError:
        return True


def last_name(pid: int) -> str:
    """Return the kernel's name of a dead child of this process that is not reaped yet; '' without a free descriptor."""
    try:
        return os.fsdecode(_read(pid, "comm").rstrip(b"\n"))
    except OSError:
        return ""


def _read(pid: int, name: str) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, STAT_MAX)
    finally:
        os.close(fd)


def still_living(processes: Mapping[int, int]) -> dict[int, int]:
    """Return those of `processes`, by pid and start time, that have not ended as far as they show it."""
    found = ((processes[process.pid], process) for process in read_processes(processes))
    return {p.pid: started for started, p in found if p.state not in "ZX" and (p.started == started or p.started < 0)}


def still_themselves(processes: Mapping[int, int]) -> set[int]:
    """Return the pids of processes that have not been reaped, so that their pids were theirs all the time."""
    return {process.pid for process in read_processes(processes) if process.started == processes[process.pid]}


def hold(pid: int) -> int | None:
    """Return a pidfd, which the caller owns; None if no process has this pid, but perhaps a thread. Raises OSError."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in NOBODY:
            return None
        raise


def hold_all(processes: Mapping[int, int]) -> dict[int, int]:
    """Return pidfds by pid for living processes whose start time is right; the caller owns them. Raises OSError."""
    pidfds: dict[int, int] = {}
    proved: set[int] = set()
    try:
        for pid in processes:
            if (pidfd := hold(pid)) is not None:
                pidfds[pid] = pidfd
        # a pidfd may hold another process by now, which then has another start time
        proved = {process.pid for process in read_processes(pidfds) if process.started == processes[process.pid]}
    finally:
        for pid in pidfds.keys() - proved:
            os.close(pidfds.pop(pid))
    return pidfds


def signal_processes(processes: Mapping[int, int], signum: int) -> None:
    """Send a signal once to each process, by pid and start time, and CONT, so that stopped processes handle it."""
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
    """Kill all processes that `find` returns, and those that it returns afterwards."""
    for _ in range(PASSES):
        living = [process for process in find() if process.state not in "ZX" and process.started >= 0]
        found = {process.pid: process.started for process in living}
        if not found:
            return
        signal_processes(found, signal.SIGKILL)


# processes of a service that are stopped for a moment


def stop_all(processes: Mapping[int, int]) -> None:
    """Stop processes, by pid and start time; they do so a moment later. Raises OSError, and some are told then."""
    _send_all(processes, signal.SIGSTOP)


def continue_all(processes: Mapping[int, int]) -> None:
    """Let stopped processes go on. Raises OSError, and some are told then."""
    _send_all(processes, signal.SIGCONT)


def _send_all(processes: Mapping[int, int], signum: int) -> None:
    rest = iter(processes.items())
    while some := dict(islice(rest, AT_ONCE)):
        _send(some, signum)


def are_stopped(pids: Collection[int]) -> bool:
    """Whether each thread of these processes is stopped or has ended: the first one may stop before the others."""
    threads: list[str] = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            threads += [f"{CONTENT}/proc/{pid}/task/{thread}/stat" for thread in os.listdir(f"/proc/{pid}/task")]
    gone = (errno.ENOENT, errno.ESRCH)
    return all(
        answer in gone if isinstance(answer, int) else answer.rpartition(b")")[2].split(None, 1)[0] in b"TtZX"
        for answer in glance(threads)
    )


# process groups of main processes without a cgroup: they are killed, stopped and continued process by process


def kill_group(leader: int, started: int) -> None:
    """Kill the process group of a leader that is no child of ours, and is ending or has just ended."""
    kill_all(lambda: _group(leader, started))


def group_lives(leader: int, started: int) -> bool:
    """Whether any process of the group is left."""
    return bool(_group(leader, started))


def stop_group(leader: int, started: int) -> bool:
    """Stop all running processes of a group; return whether all are stopped. Raises OSError.

    Nothing is stopped once the leader has been reaped, as another process may have its pid. A process that
    forks may leave a running child, so only a call that finds all of them stopped returns True.
    """
    group = _group(leader, started)
    if start_time(leader) != started:
        return False
    running = {process.pid: process.started for process in group if process.state not in "Tt"}
    _send(running, signal.SIGSTOP)
    return bool(group) and not running


def continue_group(leader: int, started: int) -> None:
    """Continue all processes of a group. Raises OSError."""
    _send({process.pid: process.started for process in _group(leader, started)}, signal.SIGCONT)


def _send(processes: Mapping[int, int], signum: int) -> None:
    held = hold_all(processes)
    try:
        for pidfd in held.values():
            with suppress(ProcessLookupError, PermissionError):  # a set-uid program of a spawnd that is not root
                signal.pidfd_send_signal(pidfd, signum)
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _group(leader: int, started: int) -> list[Process]:
    """Return the living processes of a group.

    While a group has members, the kernel gives its number to no new process. So if another process has the
    leader's pid, the group is empty.
    """
    everybody = look_at_all()
    if any(process.pid == leader and process.started != started for process in everybody):
        return []
    return [process for process in everybody if process.group == leader and process.state not in "ZX"]


def has_child_in_group(leader: int) -> bool:
    """Whether a living child of ours is in the process group of a leader that is dead and not reaped."""
    try:
        # dead children cannot stop, so only living ones count
        os.waitid(os.P_PGID, leader, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
