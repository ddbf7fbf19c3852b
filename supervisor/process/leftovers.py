"""Processes that services leave behind without a cgroup: finding and killing them.

spawnd is a child subreaper, so the leftovers of its services are its descendants, and it has no other
descendants. The orphans of services of an earlier spawnd went to process 1 instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress

from supervisor.linux.open_files import LONGEST_LOOK, open_files
from supervisor.process.pids import (
    STAT_MAX,
    Process,
    kill_all,
    look_at_all,
    read_process,
    read_processes,
    still_themselves,
)

MOST_LOOKS = 4096  # files and processes read below one process, within a tenth of a second
PIECE = 65536  # bytes per read
LONGEST_PID = 8  # characters, with a space
LINKS_OF_A_FOLDER = 2  # the folder's name and its `.`
_DEAD = os.WEXITED | os.WNOHANG | os.WNOWAIT


def has_orphans(known: Set[int]) -> bool:
    """Whether a child of this process is unknown: leftovers become its children, or are below one.

    This check is much cheaper than reading all processes. Returns True if the kernel does not tell.
    """
    children = b""
    try:
        # after each death of a service; a file object makes nine calls of the system in place of four
        fd = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while data := os.read(fd, PIECE):
                children += data
        finally:
            os.close(fd)
    except OSError:
        return True  # no CONFIG_PROC_CHILDREN
    return not known >= {*map(int, children.split())}


def kill_descendants() -> None:
    """Kill every descendant of this process."""
    kill_all(_descendants)


# Processes of an earlier spawnd are not among our descendants. The number of a session is free once the
# session is empty. So there must be proof that the session was never empty.


def relatives(known: Mapping[int, int], everybody: Sequence[Process]) -> dict[int, int]:
    """Return pids and start times of `known` processes that still live, and of all processes in their sessions."""
    roots = {process.pid: process for process in everybody if known.get(process.pid) == process.started}
    sessions = _sessions_of(roots.values())
    members = roots | {process.pid: process for process in everybody if process.session in sessions}
    return {process.pid: process.started for process in members.values()}


def left_by(
    leader: int, started: int, before: int, everybody: Sequence[Process], is_its: Callable[[int], bool]
) -> dict[int, int]:
    """Return pids and start times of the rest of a session whose leader ended unseen, after the time `before`.

    A process of the session that existed before the leader ended, or that has something only the leader had
    (`is_its`), proves that the session was never empty: no process can enter an existing session. Without
    such proof the members may be foreign, and are left out. `before` is in clock ticks since boot;
    `everybody` was read after the end of the leader.
    """
    if any(process.pid == leader and process.started != started for process in everybody):
        return {}
    members = {process.pid: process.started for process in everybody if process.session == leader}
    shown = any(0 <= at < before for at in members.values()) or any(map(is_its, members))
    return members if shown else {}


def holds_one_of(files: Set[str], clock: Callable[[], float] = time.monotonic) -> Callable[[int], bool]:
    """Return a test whether a process has one of these open files.

    All searches together take `LONGEST_LOOK`, plus the last search; later ones find no process.
    """
    until = clock() + LONGEST_LOOK
    return lambda pid: clock() < until and not files.isdisjoint(open_files(pid))


def kill_processes(processes: Mapping[int, int]) -> None:
    """Kill processes known by pid and start time, all processes in their sessions, and their descendants."""
    known = dict(processes)

    def living() -> list[Process]:
        found = _family(known, look_at_all())
        known.update((process.pid, process.started) for process in found)  # once dead, these still lead to others
        return found

    kill_all(living)


def family(known: Mapping[int, int], everybody: Sequence[Process]) -> dict[int, int]:
    """Return pids and start times of `known` processes that live, and of all in their sessions and below.

    A known process that is dead but not reaped leads to the others as well.
    """
    return {process.pid: process.started for process in _family(known, everybody) if process.state not in "ZX"}


def _family(known: Mapping[int, int], everybody: Sequence[Process]) -> list[Process]:
    roots = {process.pid: process for process in everybody if known.get(process.pid) == process.started}
    sessions = _sessions_of(roots.values())
    members = roots | {process.pid: process for process in everybody if process.session in sessions}
    return [*members.values(), *_below(members, everybody)]


def _sessions_of(roots: Iterable[Process]) -> set[int]:
    """Return the sessions of processes that are still in them, so that their numbers were never free meanwhile.

    Our own session does not count: a child is in it until it has made its own.
    """
    nobodys = (os.getsid(0), 0)
    before = {root.pid: root for root in roots if root.session not in nobodys}
    return {
        again.session
        for again in read_processes(before)
        if (again.started, again.session) == (before[again.pid].started, before[again.pid].session)
    }


def descendants_of(leader: int, started: int) -> dict[int, int]:
    """Return pids and start times of the descendants of a living process, read level by level.

    This is much cheaper than reading all processes. Returns nothing if the kernel does not tell
    (CONFIG_PROC_CHILDREN). Only the nearest of very many are found: a process that keeps forking must not
    hold spawnd up.
    """
    found: dict[int, int] = {}
    level = {leader: started}
    looks = 0
    while level and looks < MOST_LOOKS:
        listed: dict[int, int] = {}  # parents by child
        for pid in level:
            children, files = _children_of(pid, max(0, MOST_LOOKS - looks))
            looks += files + len(children)
            listed |= dict.fromkeys(children, pid)
        if not listed:  # the usual case
            break
        read = [process for process in read_processes(listed) if process.parent == listed[process.pid]]
        if not read:
            break
        # The children were read by the parent's pid: they are its own only if it still has that pid.
        same = still_themselves(level)
        level = {p.pid: p.started for p in read if p.parent in same and p.pid not in found}
        found |= level
    return found


def _children_of(pid: int, most: int) -> tuple[list[int], int]:
    """Return at most `most` children of all threads of a process, and the number of files read."""
    found: list[int] = []
    files = 0
    with suppress(OSError):  # else the process is gone
        for thread in _threads_of(pid):
            if len(found) + files >= most:
                break
            files += 1
            with suppress(OSError):
                found += _children_in(f"/proc/{pid}/task/{thread}/children", most)
    return found[:most], files


def _threads_of(pid: int) -> Sequence[int | str]:
    """Return the threads of a process. Raises OSError.

    The link count of their folder identifies a single thread with half the system calls of a listing.
    """
    folder = f"/proc/{pid}/task"
    return [pid] if os.stat(folder).st_nlink == LINKS_OF_A_FOLDER + 1 else os.listdir(folder)


def _children_in(path: str, most: int) -> list[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while len(data) < LONGEST_PID * most and (chunk := os.read(fd, STAT_MAX)):
            data += chunk
    finally:
        os.close(fd)
    return list(map(int, data.split()))


def _descendants() -> list[Process]:
    ourselves = read_process(os.getpid())
    return _below({ourselves.pid: ourselves}, look_at_all()) if ourselves is not None else []


def _below(tops: Mapping[int, Process], everybody: Iterable[Process]) -> list[Process]:
    """Return all processes below `tops`, without these.

    The processes in `everybody` were read one after the other. Parent and child count only if they are still
    related: the pid of the parent may have belonged to another process when the child was read.
    """
    by_parent: dict[int, list[Process]] = {}
    for process in everybody:
        by_parent.setdefault(process.parent, []).append(process)
    seen = _reached(tops, by_parent, lambda parent, child: True)
    again = {process.pid: process for process in read_processes(seen)}
    same = still_themselves({pid: process.started for pid, process in {**seen, **tops}.items()})

    def is_child(parent: int, child: Process) -> bool:
        now = again.get(child.pid)
        return parent in same and now is not None and (now.parent, now.started) == (parent, child.started)

    return list(_reached(tops, by_parent, is_child).values())


def _reached(
    tops: Iterable[int], by_parent: Mapping[int, Iterable[Process]], is_child: Callable[[int, Process], bool]
) -> dict[int, Process]:
    known = set(tops)
    found: dict[int, Process] = {}
    todo = list(known)
    while todo:
        parent = todo.pop()
        for child in by_parent.get(parent, ()):
            if child.pid not in known and is_child(parent, child):
                known.add(child.pid)
                found[child.pid] = child
                todo.append(child.pid)
    return found


class Orphans:
    """Search for sessions of processes known by pid and start time, with a cache of our own children.

    A child that was read once need not be read again before `reaped`: its pid is its own until then.
    """

    def __init__(self) -> None:
        self._children: dict[int, Process] = {}

    def reaped(self, pid: int) -> None:
        """Forget any child of ours that is about to be reaped."""
        self._children.pop(pid, None)

    def living_with(self, known: Mapping[int, int]) -> dict[int, int]:
        """Return pids and start times of `known` processes that live, and of all processes in their sessions.

        The number of a session is free once the session is empty. So a session counts only if a known process
        is in it before and after the search; a dead one that is not reaped will do. Our own session does not
        count: a child is in it until it has made its own.
        """
        nobodys = (os.getsid(0), 0)
        looked = self._look(known)
        unknown = {process.pid: known[process.pid] for process in looked if process.started < 0}  # apparently alive
        before = {process.pid: process for process in looked if process.started == known[process.pid]}
        sessions = {process.session for process in before.values()}.difference(nobodys)
        members = self._members(sessions, before) if sessions else []
        proved = {now.session for now in self._look(before) if _is_same(now, before[now.pid])}.difference(nobodys)
        found = [*before.values(), *(process for process in members if process.session in proved)]
        return unknown | {process.pid: process.started for process in found if process.state not in "ZX"}

    def _members(self, sessions: Collection[int], but: Collection[int]) -> list[Process]:
        """Return the processes in these sessions, without the pids in `but`."""
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        found = self._look([pid for pid in pids if pid not in but and _session_of(pid) in sessions])
        return [process for process in found if process.session in sessions]

    def _look(self, pids: Iterable[int]) -> list[Process]:
        """Read processes. The facts about a child are cached, except for its session and its death."""
        known = [self._children[pid] for pid in pids if pid in self._children]
        others = read_processes([pid for pid in pids if pid not in self._children])
        ourselves = os.getpid()
        self._children |= {p.pid: p for p in others if p.parent == ourselves and p.started >= 0}
        return [*map(_as_it_is, known), *others]


def _as_it_is(child: Process) -> Process:
    state = "Z" if os.waitid(os.P_PID, child.pid, _DEAD) is not None else child.state
    return child._replace(session=os.getsid(child.pid), state=state)


def _is_same(now: Process, before: Process) -> bool:
    """Whether the process has been in the same session all the time."""
    return (now.started, now.session) == (before.started, before.session)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1  # gone
