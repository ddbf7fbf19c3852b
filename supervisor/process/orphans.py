"""What services left behind, where there is no cgroup to tell: spawnd is a child subreaper, so it comes to spawnd.

A service that may leave a thousand processes may also die again and again, and none of its clients
is served until they have been looked at.  To read `/proc/PID/stat` is what takes long.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from supervisor.process.leftovers import Process, read_process

_DEAD = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Orphans:
    """Descendants of this process by their sessions.

    A child that was read once need not be read again before `reaped`: its pid is its own until then.
    """

    def __init__(self) -> None:
        self._children: dict[int, Process] = {}

    def reaped(self, pid: int) -> None:
        """A child of ours, whoever it was."""
        self._children.pop(pid, None)

    def living_in(self, sessions: Collection[int]) -> list[Process]:
        """Descendants that are in one of `sessions` and no zombies; the number of one without any may be used again."""
        ourselves = os.getpid()
        ours = {ourselves: True, 0: False}
        found = []
        for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:
            if pid == ourselves:
                continue
            try:
                session = os.getsid(pid)
            except OSError:
                continue  # gone
            if session in sessions:
                process = self._look(pid, session)
                if process is not None and process.session in sessions and _is_ours(process, ours):
                    found.append(process)
        return found

    def _look(self, pid: int, session: int) -> Process | None:
        """Not one that is dead.  What a child is known for stays as it is, but for its session, which it may leave."""
        process = self._children.get(pid)
        if process is not None:
            if os.waitid(os.P_PID, pid, _DEAD) is not None:
                return None
            return process if process.session == session else process._replace(session=session)
        process = read_process(pid)
        if process is None or process.state in "ZX":
            return None
        if process.parent == os.getpid():
            self._children[pid] = process
        return process


def _is_ours(process: Process, known: dict[int, bool]) -> bool:
    """Whether it is a descendant; `known` says of processes that were asked for whether they are, and learns.

    One whose parent ends meanwhile gets another: ours or another descendant, if it was one itself.
    """
    way = []
    while process.parent not in known:
        way.append(process.pid)
        above = read_process(process.parent)
        if above is None:
            above = read_process(process.pid)
            if above is None or above.parent == process.parent:  # gone itself, or its parent is hidden: nobody of ours
                return False
        process = above
    known |= dict.fromkeys([*way, process.pid], known[process.parent])
    return known[process.parent]
