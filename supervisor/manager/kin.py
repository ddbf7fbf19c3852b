"""The processes that belong to a service beside its main one, where no cgroup tells.

`Unit.leftover_pids` has each known process by pid and start time. The session of a known process proves that
others belong to the service as well: no process can enter a session from outside. The number of a session is
free again once the session is empty. So a session counts only together with a known process in it, alive or
not reaped yet.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from supervisor.manager.unit import SESSIONS, Unit
from supervisor.process.children import Children
from supervisor.process.leftovers import descendants_of, family, has_orphans, kill_processes
from supervisor.process.marks import Marked, living_relatives
from supervisor.process.pids import (
    Process,
    has_child_in_group,
    look_at_all,
    read_processes,
    signal_processes,
    still_living,
)
from supervisor.process.run import Run


class Kin:
    """Keeper of `Unit.leftover_pids` for services without a cgroup; does nothing for others.

    `units` returns all units; `touch` is called when a record has to be written.
    """

    def __init__(
        self, children: Children, units: Callable[[], Iterable[Unit]], touch: Callable[[Unit], None]
    ) -> None:
        self._children = children
        self._units = units
        self._touch = touch
        children.on_dead_orphan = self._hand_on

    def before_stop(self, unit: Unit, run: Run) -> None:
        """Learn the processes that may leave the session of the main process and be inherited by spawnd."""
        if unit.cgroup is not None:
            return
        known = unit.leftover_pids | living_sessions(unit)
        unit.leftover_pids = still_living(known) | descendants_of(run.pid, run.started)
        if run.pidfd >= 0:  # no child of ours: spawnd neither inherits its orphans nor reaps it
            unit.leftover_pids = family(_with(unit, run), look_at_all())
            unit.leftover_pids.pop(run.pid, None)  # the main process itself is no leftover

    def signal_all(self, unit: Unit, run: Run, signum: int) -> None:
        """Send a signal to the main process and to all processes that belong to it."""
        signal_processes(family(_with(unit, run), look_at_all()), signum)

    def after_background(self, unit: Unit, run: Run) -> None:
        """Learn the processes of a daemon whose first process, now dead and not reaped, went into the background."""
        if unit.cgroup is None:
            unit.leftover_pids = family(_with(unit, run), look_at_all())
            unit.leftover_pids[run.pid] = run.started  # its mark identifies the others, even when it is gone

    def after_end(self, unit: Unit, run: Run) -> None:
        """Learn the leftovers of a main process that is dead and not reaped: they are to be told to end.

        Processes that have left the session are known from before.
        """
        _end_generation(unit)
        if unit.cgroup is not None:
            return
        unit.leftover_pids |= living_sessions(unit)
        if run.pidfd >= 0 or unit.leftover_pids:
            unit.leftover_pids = family(_with(unit, run), look_at_all())
        elif has_child_in_group(run.pid):
            unit.leftover_pids = self._living_with(unit, _with(unit, run))

    def before_end(self, unit: Unit) -> None:
        """Learn the processes that a unit without a main process has left: they are to be told to end."""
        _end_generation(unit)
        if unit.cgroup is None and (known := unit.leftover_pids | living_sessions(unit)):
            unit.leftover_pids = family(known, look_at_all())

    def after_death(self, unit: Unit, run: Run) -> None:
        """Learn the leftovers of a process that is dead and not reaped: they are to live on."""
        if unit.cgroup is not None:
            return
        unit.leftover_pids |= living_sessions(unit)
        if unit.leftover_pids or run.pidfd >= 0 or has_orphans(self._children.pids() | {run.pid}):
            unit.leftover_pids = self._living_with(unit, _with(unit, run))

    def in_background(self, unit: Unit, orphans: Mapping[int, Marked]) -> dict[int, Process]:
        """Return its living processes by pid, without the main one; `orphans` count if their marks are its own."""
        found = living_relatives(unit.leftover_pids, unit.mark, orphans)
        self._learn(unit, {process.pid: process.started for process in found.values()})
        return found

    def without_proof(self, unit: Unit, orphans: Mapping[int, Marked]) -> dict[int, Process]:
        """Return orphans that may be its own: daemons may overwrite their environment, and the marks with it.

        They started after its first process and belong to no other service.
        """
        since, own = unit.first_started, ("", unit.mark)
        new = {pid: m.started for pid, m in orphans.items() if m.service in own and m.started >= since > 0}
        if unit.cgroup is not None or not new:
            return {}
        pids, sessions, groups = self._of_others(unit)
        ourselves, registered = os.getpid(), self._children.pids()
        return {
            process.pid: process
            for process in read_processes(new.keys() - pids - registered)
            if (process.parent, process.started) == (ourselves, new[process.pid])
            and process.state not in "ZX"
            and process.session not in sessions
            and process.group not in groups
        }

    def _of_others(self, unit: Unit) -> tuple[set[int], set[int], set[int]]:
        """Return known processes of all other services, and their sessions and groups."""
        known: dict[int, int] = {}
        members: set[int] = set()
        for other in self._units():
            if other is not unit:
                known |= other.leftover_pids if other.run is None else _with(other, other.run)
                if other.cgroup is not None:
                    with suppress(OSError):  # a cgroup that is being removed has no processes
                        members |= set(other.cgroup.processes())
        found = [each for each in read_processes(known) if each.started < 0 or each.started == known[each.pid]]
        pids = members | {process.pid for process in found}
        return pids, {process.session for process in found}, {process.group for process in found}

    def living(self, unit: Unit) -> dict[int, int]:
        """Return the living processes, including those that were forked while others ended."""
        return self._living_with(unit, unit.leftover_pids)

    @staticmethod
    def kill(unit: Unit) -> None:
        """Kill the leftovers that were to live on until now."""
        kill_processes(unit.leftover_pids)
        unit.leftover_pids.clear()

    def _hand_on(self, pid: int) -> None:
        """Handle an orphan that is about to be reaped.

        If it is the last known process of its session, the others in there become known now.
        """
        for unit in self._units():
            if pid in unit.leftover_pids and not _has_other_in_session(unit, pid):
                self._learn(unit, self._living_with(unit, {pid: unit.leftover_pids[pid]}))
            unit.leftover_pids.pop(pid, None)  # a thousand may end at once, and each asks for the others

    def _living_with(self, unit: Unit, known: Mapping[int, int]) -> dict[int, int]:
        """Return the living leftovers; the main process of a daemon may be in their session, and is none."""
        found = self._children.orphans.living_with(known)
        if unit.run is not None:
            found.pop(unit.run.pid, None)
        return found

    def _learn(self, unit: Unit, found: dict[int, int]) -> None:
        """Write down new leftovers: a spawnd that takes over knows them from the record alone."""
        others = unit.leftover_pids | found
        if others != unit.leftover_pids:
            unit.leftover_pids = others
            self._touch(unit)


def session_table_of(unit: Unit) -> int:
    """Return the unit's table of sessions, which is made for its first acceptor. Raises OSError."""
    if unit.session_table is None:
        keep_sessions(unit)
    if unit.session_table is None:
        raise OSError(errno.ENOTSUP, "the kernel does not identify its descriptor")
    return unit.session_table


def keep_sessions(unit: Unit, found: Mapping[int, tuple[int, int]] | None = None) -> None:
    """Give the unit a table of sessions, with those that were `found` again. Raises OSError."""
    from supervisor.launch.session_table import make_table  # most hosts have no acceptor

    unit.store.add(SESSIONS, [make_table(found)], polled=False, limit=1, trusted=True)


def _end_generation(unit: Unit) -> None:
    """Let no process become a session any more that the last acceptor had just started."""
    if unit.session_table is not None:
        from supervisor.launch.session_table import end_generation  # most hosts have no acceptor

        end_generation(unit.session_table)


def living_sessions(unit: Unit) -> dict[int, int]:
    """Return the living sessions of the unit's acceptors by pid, with their start times."""
    if unit.session_table is None:
        return {}
    from supervisor.launch.session_table import read_sessions

    known = {session.pid: session for session in read_sessions(unit.session_table)}
    return {
        process.pid: process.started
        for process in read_processes(known)
        if known[process.pid].is_process(process.started) and process.state not in "ZX"
    }


def _with(unit: Unit, run: Run) -> dict[int, int]:
    return {**unit.leftover_pids, run.pid: run.started}


def _has_other_in_session(unit: Unit, pid: int) -> bool:
    """Whether another known process is in the session of a process that is dead and not reaped."""
    session = os.getsid(pid)
    for other in unit.leftover_pids:
        with suppress(OSError):  # gone
            if other != pid and os.getsid(other) == session:
                return True
    return False
