"""Taking over after a loss: another spawnd was killed, and its services live on.

A service whose process still lives continues as it was. `Salvage` gets its descriptors back: from that
process, from the log worker, or from systemd's store. A service that ended meanwhile counts as ended in an
unknown way. If this version cannot read a record, the process is killed (by pid and start time) and the
service starts afresh, so that it never runs twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from supervisor.definitions.report import SharedValues
from supervisor.definitions.service import Service, Slot, slot_name
from supervisor.errors import ShortageError, StepError, is_shortage, suppress_but_shortage
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import WITH_PROCESS, State, begins_process, lets_end, runs, spares_others
from supervisor.lifecycle.transitions import is_last
from supervisor.linux.open_files import FILE, PIPE, SOCKET, is_unique
from supervisor.linux.pipe_call import open_end
from supervisor.log.logger import log, notice
from supervisor.log.ring import make_ring
from supervisor.manager.aftermath import logged, note_call, note_gone
from supervisor.manager.kin import keep_sessions
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit
from supervisor.printable import count
from supervisor.process.cgroup import Leaf, Subtree
from supervisor.process.children import UNKNOWN
from supervisor.process.held_descriptors import wanted
from supervisor.process.leftovers import holds_one_of, kill_processes, left_by, relatives
from supervisor.process.marks import living_in, sessions_among, with_mark
from supervisor.process.pids import Process, group_lives, look_at_all, still_living
from supervisor.process.run import Role, Run, has_begun
from supervisor.process.survivor import Fetcher, Likely, SurvivorFiles, find_survivor, has_ended
from supervisor.state.state import Record
from supervisor.state.state import State as Saved
from supervisor.takeover.records import Take, restore

DOUBT = "it is watched, and not signalled until it does"
END_TIMEOUT = 2.0  # seconds for killed processes to be gone
LOOKS = 256  # descriptors of a process that are read in a turn of the loop: a millisecond
OF_WORKER = 3  # descriptors of a log: the reading end, the writing end and the ring; a stream of the journal is one
END_POLL = 0.005  # seconds between two checks
RETRY = 1.0  # seconds until a search goes on that had no room


class TakeOver:
    """The take-over. `pool` has the descriptors, by identity, that came with this spawnd; wanted ones are taken out."""

    def __init__(self, manager: Manager, saved: Saved, pool: dict[str, int]) -> None:
        self._manager = manager
        self._saved = saved
        self._pool = pool
        self._shared = SharedValues()
        self._fetcher = Fetcher(manager.children.when_reaped, manager.host.closer)
        # the log worker, once it is found: it holds the output of every service
        self._readers: list[SurvivorFiles] = []
        self._searches: dict[str, Search] = {}
        self._ended: list[_Ended] = []
        # services whose end was unseen: was it a check; their own files
        self._unseen: dict[str, tuple[bool, set[str]]] = {}
        self._unbegun: set[str] = set()  # services whose process ended before it was released to call a function

    def run(self) -> None:
        """Take over everything there is, as if this spawnd had started it."""
        records = self._saved.units
        # built-in services come first: they hold descriptors of the others
        names = sorted(records, key=lambda name: not records[name].get("internal", False))
        found = [known for name in names if (known := self._find(name, records[name])) is not None]
        self._fetch_ahead(found)
        taken = [unit for known in found if (unit := self._take(known)) is not None]
        for known in found:
            if known.own is not None:
                known.own.close()
        self._end_left([unit for unit in taken if unit.run is None])
        for unit in taken:
            self._find_sessions(unit)
        self._end_unknown(taken)
        self._wait_ended()
        self._manager.sources.give(self._saved.sources)
        self._manager.index(self._saved.services)
        alive = sum(unit.run is not None for unit in taken)
        notice("taking over from spawnd %d: %s, %d alive", self._saved.pid, count(len(taken), "service"), alive)
        self._manager.writer.begin()  # before the first new process: a spawnd after another loss has to know it
        for unit in taken:
            self._rebuild(unit)
        # without those that are forgotten by now, as they were to go and have ended meanwhile
        self._manager.remove([unit for unit in self._manager.units.values() if unit.removed])
        self._manager.sweep()
        for search in self._searches.values():
            search.begin()

    def _find(self, name: str, record: Record) -> _Found | None:
        """Find the process of a unit. A unit that this version cannot read is ended."""
        run = None
        try:
            run = _process(record)
            role = Role(record["run"].get("role", Role.MAIN)) if "run" in record else Role.MAIN
            if run is not None and role is Role.CHECK:
                self._end(_Ended(run))  # no caller is left for the result of a check
                run = None
            elif run is not None:
                run.role = role
            service = self._shared.service(self._saved.services[name])
            if run is not None and run.in_doubt:
                log.warning("%s: process %d does not show whether it is still its own: %s", name, run.pid, DOUBT)
            own = self._files_of(run) if run is not None else None
            if own is not None and record.get("internal", False):
                own.look_at_all()
                self._readers.append(own)
            likely = [] if own is None else likely_places(record, service, own, self._readers)
        except Exception as error:
            self._refuse(name, record, run, error)
            return None
        return _Found(name, record, service, role, own, likely)

    def _fetch_ahead(self, found: Sequence[_Found]) -> None:
        """Fetch descriptors at likely places. A file that must not be held keeps back other files only."""
        likely = [each for known in found for each in known.likely]
        self._fetcher.fetch_ahead([each for each in likely if not self._is_file_of_service(each)])
        self._fetcher.fetch_ahead([each for each in likely if self._is_file_of_service(each)])

    def _is_file_of_service(self, likely: Likely) -> bool:
        return likely.identity.startswith(FILE) and likely.files not in self._readers

    def _take(self, found: _Found) -> Unit | None:
        name, record, service, role, own, _likely = found
        run = own.run if own is not None else None
        try:
            unit = self._manager.add(service, internal=record.get("internal", False))
            salvage = Salvage(own, self._readers, self._pool)
            restore(unit, record, salvage, self._manager.host, self._shared)
            unit.has_lost_children = unit.cgroup is None
            if own is not None and salvage.left:
                self._searches[name] = Search(self._manager, unit, own, salvage.left)
            if run is None and "pid" in record and unit.cgroup is None:  # a cgroup tells when it is empty
                self._unseen[name] = role is Role.CHECK, own_files(record)
        except Exception as error:
            self._refuse(name, record, run, error)
            return None
        if unit.frozen is not None and (leaf := _cgroup(record)) is not None:
            with suppress(StepError):  # this spawnd may use no cgroups
                leaf.thaw()
        if run is None and role.is_function:
            self._learn_answer(unit, role)
        return unit

    def _refuse(self, name: str, record: Record, run: Run | None, error: Exception) -> None:
        """End a unit that this version cannot take over. Raises ShortageError if a later take-over may succeed."""
        if is_shortage(error):
            raise ShortageError(f"{name}: cannot be taken over now, and goes on: {error}") from error
        why = f"{type(error).__name__}: {error}" if name in self._saved.services else "it is of another version"
        log.error("%s: cannot be taken over, so it is ended: %s", name, why)
        self._manager.discard(name)
        self._readers = [reader for reader in self._readers if reader.run is not run]
        self._end(_everything(record, run))

    def _files_of(self, run: Run) -> SurvivorFiles:
        return SurvivorFiles(run, self._fetcher, self._manager.host.closer)

    def _rebuild(self, unit: Unit) -> None:
        """Watch the unit from now on, and bring its life up to date."""
        manager, run = self._manager, unit.run
        if run is not None:
            self._rebuild_process(unit, run)
        else:
            manager.rebuild(unit)
        was_there = "pid" in self._saved.units[unit.name] and unit.name not in self._unbegun
        if run is None and unit.ended_clean is None and not was_there and begins_process(unit.life):
            manager.event(unit, machine.not_begun)
            return
        manager.event(unit, machine.recovered, run is not None)
        if run is None and runs(unit.service, unit.life):
            if unit.ended_clean is None:
                note_gone(unit)
            manager.ended(unit)
        if unit.life.state in (State.WAITING, State.BACKOFF) and "table" in self._saved.units[unit.name]:
            # so that clients can queue again
            try:
                unit.table.open_local(unit.service)
            except StepError as error:
                log.warning("%s: %s", unit.name, error)

    def _rebuild_process(self, unit: Unit, run: Run) -> None:
        service = unit.service
        waits = service.ready == "fd" and (unit.life.state is State.STARTING or is_last(unit.life))
        if waits:
            run.ready_fd = self._files_of(run).reading_end(service.ready_fd or -1)
        self._manager.rebuild(unit)
        self._manager.processes.bind_receiver(unit)
        outlives = service.kill_mode == "process" or service.accept is not None
        if unit.cgroup is None and (outlives or unit.life.state is State.STOPPING):
            unit.leftover_pids = relatives({**unit.leftover_pids, run.pid: run.started}, look_at_all())
            unit.leftover_pids.pop(run.pid, None)
        lost = unit.table.missing(service)
        if lost and unit.name not in self._searches:
            log.warning("%s: descriptors not got back: %s", unit.name, ", ".join(map(slot_name, lost)))
        if waits and run.ready_fd < 0:
            # the process has closed its ready_fd and could not be heard
            self._manager.ready(unit)

    def _learn_answer(self, unit: Unit, function: Role) -> None:
        """Read the answer of a function that has ended meanwhile."""
        if unit.ended_clean is not None:
            return
        path = self._manager.host.runtime.answer_path(unit.name, function.value)
        if not has_begun(path):
            self._unbegun.add(unit.name)
        answer = self._manager.processes.aftermath.learn_answer(path)
        if answer is not None:
            unit.ended_clean = answer.ok
            note_call(unit, function, answer, UNKNOWN)

    # what is not taken over

    def _end_left(self, units: Sequence[Unit]) -> None:
        """Kill the leftovers of main processes that have ended meanwhile, or keep them if they live on."""
        everybody = look_at_all() if self._unseen or any(unit.leftover_pids for unit in units) else []
        for unit in units:
            unit.leftover_pids = relatives(unit.leftover_pids, everybody)
            if unit.name in self._unseen:
                self._end_left_by(unit, everybody)

    def _end_unknown(self, units: Sequence[Unit]) -> None:
        """Kill processes that a spawnd has started that could not write them down."""
        for unit in units:
            is_down = unit.life.state in (State.WAITING, State.BACKOFF)
            is_down = is_down and not unit.life.set_up  # what a function has started may live on
            if is_down and unit.cgroup is not None and not spares_others(unit.service, unit.life, False):
                self._end(_Ended(cgroup=unit.cgroup))

    def _end_left_by(self, unit: Unit, everybody: Sequence[Process]) -> None:
        record, (was_check, own) = self._saved.units[unit.name], self._unseen[unit.name]
        left = left_by(
            record["pid"],
            record["started"],
            self._saved.written,
            everybody,
            holds_one_of(own),
        )
        has_time = lets_end(unit.service, unit.life)  # leftovers are told to end once this unit is resumed
        spares = spares_others(unit.service, unit.life, bool(unit.ended_clean)) and not was_check
        if has_time or spares:
            unit.leftover_pids |= left
        else:
            self._end(_Ended(processes=left))

    def _find_sessions(self, unit: Unit) -> None:
        """Make the table of sessions anew if it was lost with the last acceptor and spawnd: they live on.

        In a cgroup they are found there. Without one their mark proves them. Most services that sleep have no process.
        """
        may_have = unit.life.keeps_sessions or unit.life.state in (*WITH_PROCESS, State.WAITING, State.BACKOFF)
        may_have |= unit.life.state is State.ASLEEP and (unit.cgroup is not None or bool(unit.leftover_pids))
        if unit.service.accept is None or not may_have or unit.run is not None or unit.session_table is not None:
            return
        with logged(unit):
            if unit.cgroup is not None:
                found = list(living_in(unit.cgroup).values())
            else:
                uid = unit.service.uid if self._manager.host.is_root else os.geteuid()
                found = with_mark(unit.mark, uid, self._manager.children.when_reaped)
                unit.leftover_pids |= {process.pid: process.started for process in found}
            sessions = sessions_among(found)
            if sessions:
                keep_sessions(unit, sessions)
                notice("%s: found again: %s", unit.name, count(len(sessions), "session"))

    def _end(self, ended: _Ended) -> None:
        with suppress(StepError, OSError):
            ended.kill()
        self._ended.append(ended)

    def _wait_ended(self) -> None:
        """Wait until killed processes are gone: they hold addresses that their successors need."""
        deadline = time.monotonic() + END_TIMEOUT
        while any(ended.lives() for ended in self._ended) and time.monotonic() < deadline:
            time.sleep(END_POLL)
        for ended in self._ended:
            ended.close()


def own_files(record: Record) -> set[str]:
    """Return identities of sockets and pipes that were opened for this unit alone, and so prove its processes."""
    tables = [record.get("table", {}), record.get("next", {}).get("table", {})]
    saved = [*(entry for table in tables for entry in table.values()), *record.get("streams", ())]
    return {entry[1] for entry in saved if entry[1].startswith((SOCKET, PIPE))}


class _Ended:
    """Processes to kill: a main process with its group, others by pid and start time, a cgroup. Owns `run`."""

    def __init__(
        self, run: Run | None = None, processes: Mapping[int, int] | None = None, cgroup: Leaf | None = None
    ) -> None:
        self._run = run
        self._processes = processes or {}
        self._cgroup = cgroup

    def kill(self) -> None:
        """Kill everything. Raises StepError if the cgroup cannot be killed; the others have been killed then."""
        if self._run is not None:
            self._run.kill_group()
        if self._processes:
            kill_processes(self._processes)
        if self._cgroup is not None:
            self._cgroup.kill()
            self._cgroup.thaw()  # the next process in a frozen cgroup would never run

    def lives(self) -> bool:
        run = self._run
        return (
            (run is not None and (not has_ended(run.pidfd) or group_lives(run.pid, run.started)))
            or bool(still_living(self._processes))
            or (self._cgroup is not None and self._cgroup.is_populated())
        )

    def close(self) -> None:
        if self._run is not None:
            self._run.close()


def _everything(record: Mapping[str, Any], run: Run | None) -> _Ended:
    """Return all processes that an unreadable record names."""
    others = {}
    with suppress(TypeError, ValueError):
        others = {int(pid): int(started) for pid, started in record.get("others", ())}
    return _Ended(run, others, _cgroup(record))


def _process(record: Record) -> Run | None:
    """Return the unit's process if it lives. Raises any exception caused by a record of another version, OSError."""
    if "pid" not in record:
        return None
    run = find_survivor(int(record["pid"]), int(record["started"]), int(record.get("run", {}).get("number", 0)))
    if run is not None and run.in_doubt and (leaf := _cgroup(record)) is not None:
        run.in_doubt = run.pid not in leaf.processes()  # processes in the cgroup belong to the service
    return run


def _cgroup(record: Mapping[str, Any]) -> Leaf | None:
    cgroup = record.get("cgroup")
    return Leaf(Subtree(os.path.dirname(cgroup)), cgroup) if isinstance(cgroup, str) else None


class _Found(NamedTuple):
    """A unit, its living process if any, and the places where that process probably has the unit's descriptors."""

    name: str
    record: Record
    service: Service
    role: Role
    own: SurvivorFiles | None
    likely: list[Likely]


def likely_places(
    record: Record, service: Service, own: SurvivorFiles, readers: Sequence[SurvivorFiles]
) -> list[Likely]:
    """Return where a process still has the descriptors of its unit if it has not moved them.

    Raises any exception caused by a record of another version.
    """
    numbers = {slot_name(slot): slot for slot in wanted(service)}
    table = record.get("table", {}).items()
    likely = [Likely(own, numbers[name], saved[1]) for name, saved in table if name in numbers]
    streams = record.get("streams", ())
    output = 1 if service.stdout.kind == "log" else 2
    for _fd, name in streams if len(streams) == OF_WORKER else ():
        places = ((reader, number) for reader in readers for number in reader.numbers(name)[:1])
        likely.append(Likely(*next(places, (own, output)), name))
    return [each for each in likely if each.identity and is_unique(each.identity)]


class Salvage:
    """The `Source` of a unit whose process is that of `own`, None if it has ended.

    `readers` hold descriptors of every service's output. `pool` has descriptors of any service by identity;
    wanted ones are taken out.
    """

    def __init__(self, own: SurvivorFiles | None, readers: Sequence[SurvivorFiles], pool: dict[str, int]) -> None:
        self._run = own.run if own is not None else None
        self._own = [own] if own is not None else []
        self._readers = readers
        self._pool = pool
        self.left: list[Wanted] = []  # descriptors to search for later

    def run(self) -> Run | None:
        return self._run

    def descriptor(self, saved: Sequence[Any], slot: Slot | None = None) -> int | None:
        return self._find(saved[1], self._own, [slot] if slot is not None else [])

    def find_later(self, saved: Sequence[Any], what: str, take: Take) -> bool:
        if not saved[1] or not self._own or self._own[0].is_known:
            return False
        self.left.append(Wanted(saved[1], what, take))
        return True

    def streams(self, saved: Sequence[Sequence[Any]]) -> list[int]:
        """Return the descriptors of a log: the service has the writing end, the log worker the others.

        Streams of the journal are made anew. One end of a pipe leads to the other. A lost ring is begun anew.
        A service that writes to a pipe without a reader would be killed.
        """
        if len(saved) != OF_WORKER:
            return []
        # the log worker first, to avoid a search through all descriptors of the service
        outputs = (1, 2)
        fds: list[int | None] = [self._find(name, [*self._readers, *self._own], outputs) for _, name in saved]
        reading_end, writing_end, ring = fds
        with suppress_but_shortage():
            if reading_end is None and writing_end is not None:
                fds[0] = _other_end(writing_end, os.O_RDONLY)
            elif writing_end is None and reading_end is not None:
                fds[1] = _other_end(reading_end, os.O_WRONLY)
            if ring is None:
                fds[2] = make_ring("again")
        found = [fd for fd in fds if fd is not None]
        if len(found) == len(saved):
            return found
        for fd in found:
            os.close(fd)
        return []

    def _find(self, name: str, survivors: Sequence[SurvivorFiles], likely: Sequence[int] = ()) -> int | None:
        if not name:
            return None
        for files in survivors:
            fd = files.duplicate(name, likely)
            if fd is not None:
                return fd
        return self._pool.pop(name, None)


class Wanted(NamedTuple):
    """A descriptor to search for over turns of the loop, by its identity."""

    identity: str
    what: str
    take: Take


class Search:
    """Search for descriptors that a surviving process has at unlikely numbers, over turns of the loop.

    The process may have any number of descriptors, and fetching each takes a child. The search ends with the process.
    """

    def __init__(self, manager: Manager, unit: Unit, own: SurvivorFiles, left: Sequence[Wanted]) -> None:
        self._manager = manager
        self._unit = unit
        self._own = own
        self._left = list(left)
        self._lost: list[str] = []

    def begin(self) -> None:
        self._manager.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._unit.run is not self._own.run:
            return
        if not self._own.is_known:
            self._own.look_on(LOOKS)
        elif self._left:
            wanted = self._left[0]
            try:
                self._get(wanted)
            except OSError as error:  # there is no room for it
                log.warning("%s: cannot get %s, trying again in %g s: %s", self._unit.name, wanted.what, RETRY, error)
                self._manager.loop.call_later(RETRY, self._go_on)
                return
            del self._left[0]
        else:
            if self._lost:
                log.warning("%s: not got back: %s", self._unit.name, ", ".join(self._lost))
            return
        self._manager.loop.call_soon(self._go_on)

    def _get(self, wanted: Wanted) -> None:
        fd = self._own.duplicate(wanted.identity)
        if fd is None:
            self._lost.append(wanted.what)
        elif wanted.take(fd):
            self._manager.writer.touch(self._unit)
        else:
            self._manager.host.closer.close([fd])


def _other_end(fd: int, access: int) -> int:
    """Return a new descriptor, in blocking mode, for the other end of a pipe. Raises OSError; never blocks."""
    other = open_end(fd, access)
    os.set_blocking(other, True)
    return other
