"""Processes that services leave behind, where there is no cgroup to tell: how they are found and ended.

spawnd is a child subreaper, so whatever services left behind is among its descendants, and nothing else is; but for
services of an earlier spawnd, whose orphans went to process 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from supervisor.process.pids import (
    STAT_MAX,
    Process,
    kill_all,
    look_at_all,
    read_process,
    read_processes,
    still_themselves,
)

MOST_LOOKS = 4096  # files and processes that a look below one process takes: less than a tenth of a second
LONGEST_PID = 8  # characters, with a blank
LINKS_OF_A_FOLDER = 2  # its name and its `.`
_DEAD = os.WEXITED | os.WNOHANG | os.WNOWAIT


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
    kill_all(_descendants)


# Processes of an earlier spawnd are not among our descendants.  A session is known by its number, which is free for
# anybody once nobody is in it; so it has to be shown that it never was.


def relatives(known: Mapping[int, int], everybody: Sequence[Process]) -> dict[int, int]:
    """Pids and start times of those of `known` that still live, and of all in their sessions."""
    roots = {process.pid: process for process in everybody if known.get(process.pid) == process.started}
    sessions = _sessions_of(roots.values())
    members = roots | {process.pid: process for process in everybody if process.session in sessions}
    return {process.pid: process.started for process in members.values()}


def left_by(
    leader: int, started: int, before: int, everybody: Sequence[Process], is_its: Callable[[int], bool]
) -> dict[int, int]:
    """Pids and start times of what is left of the session of a leader that ended unseen, after the time `before`.

    A process in the session that was there before the leader ended, or has something that was the leader's alone
    (`is_its`), shows that its number was never free: nobody can enter a session that is there already.  Without such a
    one the others may be anybody's, and are left out.  `before` is in clock ticks since boot; `everybody` was looked at
    after that end.
    """
    if any(process.pid == leader and process.started != started for process in everybody):
        return {}
    members = {process.pid: process.started for process in everybody if process.session == leader}
    shown = any(0 <= at < before for at in members.values()) or any(map(is_its, members))
    return members if shown else {}


def kill_processes(processes: Mapping[int, int]) -> None:
    """KILL to processes that are known by pid and start time, to all in their sessions, and to their descendants."""
    known = dict(processes)

    def living() -> list[Process]:
        found = _family(known, look_at_all())
        known.update((process.pid, process.started) for process in found)  # they tell of others when these are dead
        return found

    kill_all(living)


def family(known: Mapping[int, int], everybody: Sequence[Process]) -> dict[int, int]:
    """Pids and start times of those of `known` that live, and of all in their sessions and below.

    One of `known` that is dead and not reaped tells of the others as well.
    """
    return {process.pid: process.started for process in _family(known, everybody) if process.state not in "ZX"}


def _family(known: Mapping[int, int], everybody: Sequence[Process]) -> list[Process]:
    roots = {process.pid: process for process in everybody if known.get(process.pid) == process.started}
    sessions = _sessions_of(roots.values())
    members = roots | {process.pid: process for process in everybody if process.session in sessions}
    return [*members.values(), *_below(members, everybody)]


def _sessions_of(roots: Iterable[Process]) -> set[int]:
    """The sessions of processes that are in them still, so that the numbers were not free since these were read.

    Our own session is nobody's: a child is in it until it has made one of its own.
    """
    nobodys = (os.getsid(0), 0)
    before = {root.pid: root for root in roots if root.session not in nobodys}
    return {
        again.session
        for again in read_processes(before)
        if (again.started, again.session) == (before[again.pid].started, before[again.pid].session)
    }


def descendants_of(leader: int, started: int) -> dict[int, int]:
    """Pids and start times of those below a living process, asked of each of them: much less than a look at everybody.

    Nobody is found where the kernel does not tell (CONFIG_PROC_CHILDREN).  Of very many the nearest are found: one that
    forks all the time must not keep us here.
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
        if not listed:  # as nearly all have none
            break
        read = [process for process in read_processes(listed) if process.parent == listed[process.pid]]
        if not read:
            break
        # the children of whoever had the pid while they were read: of this one, if it has it still
        same = still_themselves(level)
        level = {p.pid: p.started for p in read if p.parent in same and p.pid not in found}
        found |= level
    return found


def _children_of(pid: int, most: int) -> tuple[list[int], int]:
    """The children of each of its threads, and how many files were read; at most so many of both."""
    found: list[int] = []
    files = 0
    with suppress(OSError):  # else it is gone
        for thread in _threads_of(pid):
            if len(found) + files >= most:
                break
            files += 1
            with suppress(OSError):
                found += _children_in(f"/proc/{pid}/task/{thread}/children", most)
    return found[:most], files


def _threads_of(pid: int) -> Sequence[int | str]:
    """The threads of a process.  Raises OSError.

    The link count of their folder tells of a lone one, by half the system calls that to list it takes.
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
    """All below `tops` that are none of them.

    `everybody` was read one after the other: who is the parent of whom counts if it is still so, for the number of the
    parent may have been another's when the child was read.
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
    """The sessions of processes that are known by pid and start time.

    A child that was read once need not be read again before `reaped`: its pid is its own until then.
    """

    def __init__(self) -> None:
        self._children: dict[int, Process] = {}

    def reaped(self, pid: int) -> None:
        """A child of ours, whoever it was, is about to be."""
        self._children.pop(pid, None)

    def living_with(self, known: Mapping[int, int]) -> dict[int, int]:
        """Pids and start times of those of `known` that live, and of all in their sessions.

        The number of a session is anybody's once nobody is in it.  So it counts only where one of `known` is in it
        before and after the others are looked for; one that is dead and not reaped will do.  Our own session is
        nobody's: a child is in it until it has made one of its own.
        """
        nobodys = (os.getsid(0), 0)
        looked = self._look(known)
        unknown = {process.pid: known[process.pid] for process in looked if process.started < 0}  # alive, as it seems
        before = {process.pid: process for process in looked if process.started == known[process.pid]}
        sessions = {process.session for process in before.values()}.difference(nobodys)
        members = self._members(sessions, before) if sessions else []
        proved = {now.session for now in self._look(before) if _is_same(now, before[now.pid])}.difference(nobodys)
        found = [*before.values(), *(process for process in members if process.session in proved)]
        return unknown | {process.pid: process.started for process in found if process.state not in "ZX"}

    def _members(self, sessions: Collection[int], but: Collection[int]) -> list[Process]:
        """The processes in these sessions, without those that are known anyway."""
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        found = self._look([pid for pid in pids if pid not in but and _session_of(pid) in sessions])
        return [process for process in found if process.session in sessions]

    def _look(self, pids: Iterable[int]) -> list[Process]:
        """The facts about a child stay the same, but for its session, which it may leave, and for its end."""
        known = [self._children[pid] for pid in pids if pid in self._children]
        others = read_processes([pid for pid in pids if pid not in self._children])
        ourselves = os.getpid()
        self._children |= {p.pid: p for p in others if p.parent == ourselves and p.started >= 0}
        return [*map(_as_it_is, known), *others]


def _as_it_is(child: Process) -> Process:
    state = "Z" if os.waitid(os.P_PID, child.pid, _DEAD) is not None else child.state
    return child._replace(session=os.getsid(child.pid), state=state)


def _is_same(now: Process, before: Process) -> bool:
    """Whether it has been in the session in which it was seen all the time."""
    return (now.started, now.session) == (before.started, before.session)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1  # gone
