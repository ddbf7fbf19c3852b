"""Which processes beside its main one are a service's own, where there is no cgroup to tell.

Each is known by pid and start time, in `Unit.leftover_pids`.  Its session proves others to be the service's as well:
nobody enters a session from outside, so all in it come from the service.  But the number of a session is free again
once nobody is in it.  So it counts only together with a known process that is in it, alive or not reaped yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from supervisor.manager.unit import Unit
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
    """Keeps `Unit.leftover_pids` of services without a cgroup; of others it does nothing.

    `units` gives those that there are; `touch` is called where something is to be written down.
    """

    def __init__(
        self, children: Children, units: Callable[[], Iterable[Unit]], touch: Callable[[Unit], None]
    ) -> None:
        self._children = children
        self._units = units
        self._touch = touch
        children.on_dead_orphan = self._hand_on

    def before_stop(self, unit: Unit, run: Run) -> None:
        """Know those that leave the session of the main process, and come to us as it ends."""
        if unit.cgroup is not None:
            return
        unit.leftover_pids = still_living(unit.leftover_pids) | descendants_of(run.pid, run.started)
        if run.pidfd >= 0:  # its orphans do not come to us, and it does not wait for us to be reaped
            unit.leftover_pids = family(_with(unit, run), look_at_all())
            unit.leftover_pids.pop(run.pid, None)  # it is none of the others

    def signal_all(self, unit: Unit, run: Run, signum: int) -> None:
        """A signal to the main process and to all that are its own."""
        signal_processes(family(_with(unit, run), look_at_all()), signum)

    def after_background(self, unit: Unit, run: Run) -> None:
        """The first process of a daemon that goes into the background is dead and not reaped."""
        if unit.cgroup is None:
            unit.leftover_pids = family(_with(unit, run), look_at_all())
            unit.leftover_pids[run.pid] = run.started  # whose mark tells the others, also when it is gone
            unit.first_started = run.started

    def after_end(self, unit: Unit, run: Run) -> None:
        """A main process is dead and not reaped, and what it has left is to be told to end.

        A process that has left its session was known before.
        """
        if unit.cgroup is not None:
            return
        if run.pidfd >= 0 or unit.leftover_pids:
            unit.leftover_pids = family(_with(unit, run), look_at_all())
        elif has_child_in_group(run.pid):
            unit.leftover_pids = self._living_with(unit, _with(unit, run))

    def after_death(self, unit: Unit, run: Run) -> None:
        """A process is dead and not reaped, and what it has left is to live on."""
        if unit.cgroup is not None:
            return
        if unit.leftover_pids or run.pidfd >= 0 or has_orphans(self._children.pids() | {run.pid}):
            unit.leftover_pids = self._living_with(unit, _with(unit, run))

    def in_background(self, unit: Unit, orphans: Mapping[int, Marked]) -> dict[int, Process]:
        """Its living processes, none of which is the main one; `orphans` with their marks are looked for its own."""
        found = living_relatives(unit.leftover_pids, unit.mark, orphans)
        self._learn(unit, {process.pid: process.started for process in found.values()})
        return found

    def without_proof(self, unit: Unit, orphans: Mapping[int, Marked]) -> dict[int, Process]:
        """Orphans that may be its own, as daemons may overwrite their environment with the marks.

        They have started since its first process, and are of no other service.
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
        """Known processes of all other services, and their sessions and groups."""
        known: dict[int, int] = {}
        members: set[int] = set()
        for other in self._units():
            if other is not unit:
                known |= other.leftover_pids if other.run is None else _with(other, other.run)
                if other.cgroup is not None:
                    with suppress(OSError):  # it is being removed, and so has none
                        members |= set(other.cgroup.processes())
        found = [each for each in read_processes(known) if each.started < 0 or each.started == known[each.pid]]
        pids = members | {process.pid for process in found}
        return pids, {process.session for process in found}, {process.group for process in found}

    def living(self, unit: Unit) -> dict[int, int]:
        """Return the living processes, including those that were forked while others ended."""
        return self._living_with(unit, unit.leftover_pids)

    @staticmethod
    def kill(unit: Unit) -> None:
        """KILL to what it has left behind and was to live on until now."""
        if unit.leftover_pids:
            kill_processes(unit.leftover_pids)
            unit.leftover_pids.clear()

    def _hand_on(self, pid: int) -> None:
        """A child that nobody is registered for is about to be reaped.

        If it is the last one that is known in its session, the others in there are known from now on.
        """
        for unit in self._units():
            if pid in unit.leftover_pids and not _has_other_in_session(unit, pid):
                self._learn(unit, self._living_with(unit, {pid: unit.leftover_pids[pid]}))
            unit.leftover_pids.pop(pid, None)  # a thousand may end at once, and each asks for the others

    def _living_with(self, unit: Unit, known: Mapping[int, int]) -> dict[int, int]:
        """Without the main process, which may be in the session of others where it is a daemon in the background."""
        found = self._children.orphans.living_with(known)
        if unit.run is not None:
            found.pop(unit.run.pid, None)
        return found

    def _learn(self, unit: Unit, found: dict[int, int]) -> None:
        """A spawnd that takes over finds them by what is written down alone."""
        others = unit.leftover_pids | found
        if others != unit.leftover_pids:
            unit.leftover_pids = others
            self._touch(unit)


def _with(unit: Unit, run: Run) -> dict[int, int]:
    return {**unit.leftover_pids, run.pid: run.started}


def _has_other_in_session(unit: Unit, pid: int) -> bool:
    """Whether another known process is in the session of one that is dead and not reaped."""
    session = os.getsid(pid)
    for other in unit.leftover_pids:
        with suppress(OSError):  # gone
            if other != pid and os.getsid(other) == session:
                return True
    return False
