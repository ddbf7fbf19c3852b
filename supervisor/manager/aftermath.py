"""The aftermath of a process: how its end counts, and the search for the processes that it leaves behind.

Without a cgroup, processes may have left the session of their service. Spawnd is their subreaper and inherits
them (`Strays`). They are killed along with their service only if a mark in their environment proves that they
belong to it.
Nothing waits for this search: a thousand services may end at once, and handling their ends must not take
longer.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from supervisor.errors import StepError, is_shortage
from supervisor.lifecycle.cause import background
from supervisor.lifecycle.life import (
    Cause,
    Ended,
    State,
    Step,
    Then,
    goes_into_background,
    in_call,
    lets_end,
    spares_others,
    tells_all,
)
from supervisor.lifecycle.wording import left_behind
from supervisor.log.logger import log, notice
from supervisor.log.output import Outputs
from supervisor.loop.loop import Loop, Timer
from supervisor.manager import functions
from supervisor.manager.background import Background, PidFiles
from supervisor.manager.emptying import Again, Emptying, Parting
from supervisor.manager.kin import Kin
from supervisor.manager.unit import Unit
from supervisor.process.children import Children, Exit, signal_name
from supervisor.process.failure import failed
from supervisor.process.leftovers import has_orphans, kill_processes
from supervisor.process.marks import MOST_TOLD, Marked, MarkReader, living_in, name_of, strangers
from supervisor.process.pids import Process, signal_processes, still_living
from supervisor.process.run import Answer, Role, Run, drop_answer, read_answer
from supervisor.process.survivor import find_survivor

GONE = "ended in an unknown way while there was no spawnd"
NOTHING_LEFT = "left no process in the background"
# seconds from the end of a service to the search for strays, which covers all services that ended meanwhile
PAUSE = 0.05


class EndListener(Protocol):
    """Receiver of the events that follow the death of a unit's process."""

    def touch(self, unit: Unit) -> None: ...
    def flush(self) -> None:
        """Write down all changes."""

    def in_background(self, unit: Unit) -> None: ...
    def exited(self, unit: Unit, clean: bool, reason: str) -> None: ...


class Aftermath:
    """Handling of a unit's end; owns `Unit.rest` and `Unit.ended_clean` until the owner is told of the end.

    `units` returns all units. `take_over` makes the process of a daemon the unit's main process.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        kin: Kin,
        owner: EndListener,
        units: Callable[[], Iterable[Unit]],
        take_over: Callable[[Unit, Run], None],
        outputs: Outputs,
    ) -> None:
        self._loop = loop
        self._children = children
        self._kin = kin
        self._owner = owner
        self._units = units
        self._take_over = take_over
        self._outputs = outputs
        self._marks = MarkReader(loop, children)
        self._pid_files = PidFiles(loop, children)
        self._strays = Strays(loop, children, self._marks, self._others, self._sought, self._tell_left)

    def end(self, unit: Unit, clean: bool) -> None:
        """Tell the owner of the end, once every process that has to be gone is gone, besides its killed group."""
        if unit.is_sought or (clean and goes_into_background(unit.service, unit.life)):
            self._seek(unit)
            return
        told = unit.ended_clean is not None or tells_all(unit.service, unit.life)
        unit.ended_clean = clean
        self._try_end_rest(unit, told)

    def learn_answer(self, path: str) -> Answer | None:
        """Return the answer of a function that has ended. Its file goes once the result is written down."""
        answer, inode = read_answer(path)

        def drop() -> None:
            self._owner.flush()
            drop_answer(path, inode)

        self._loop.call_soon(drop)
        return answer

    def end_left(self, unit: Unit) -> None:
        """End what a unit without a process has left running, sessions with time to end, then tell the owner."""
        self._kin.before_end(unit)
        unit.ended_clean = False
        self._try_end_rest(unit, told=False)

    def _try_end_rest(self, unit: Unit, told: bool, is_overdue: bool = False) -> None:
        """Make the leftovers of the main process end, and tell of its end once there are none to wait for."""
        unit.rest = None
        patient = lets_end(unit.service, unit.life)
        if patient or not self._spares_others(unit):
            try:
                unit.rest = self._end_rest(unit, patient and not is_overdue, told)
            except (StepError, OSError) as error:
                unit.rest = self._later(unit, error, partial(self._try_end_rest, unit, told))
        if unit.rest is None:
            self._tell_end(unit)
        else:
            self._owner.touch(unit)

    def _later(self, unit: Unit, error: StepError | OSError, act: Callable[[bool], None]) -> Again | None:
        """Log that leftovers cannot be ended. They have to be gone before the next start: act again if that helps."""
        log.warning("%s: %s", unit.name, error)
        return Again(self._loop, act) if is_shortage(error) else None

    def _tell_end(self, unit: Unit, _is_overdue: bool = False) -> None:
        """Tell the owner of the end: no process is left that has to be waited for."""
        unit.rest = None
        if unit.cgroup is None and not self._spares_others(unit):
            try:
                if unit.leftover_pids:
                    self._kin.kill(unit)
            except (StepError, OSError) as error:
                unit.rest = self._later(unit, error, partial(self._tell_end, unit))
                if unit.rest is not None:
                    return
            self._strays.end(unit)
        clean, unit.ended_clean = bool(unit.ended_clean), None
        self._outputs.end_line(unit.name)
        # an older spawnd had one field for both results; a first process that went into the background has set neither
        reason = (in_call(unit.life) and unit.last_call) or unit.last_exit or NOTHING_LEFT
        self._owner.exited(unit, clean, reason)

    @staticmethod
    def _spares_others(unit: Unit) -> bool:
        return spares_others(unit.service, unit.life, bool(unit.ended_clean))

    def _end_rest(self, unit: Unit, patient: bool, told: bool) -> Emptying | Parting | None:
        """Make the leftovers of the main process end; return None if there are none to wait for.

        If `patient`, leftovers are told to end unless they were `told` before. Raises StepError, OSError.
        """
        done = partial(self._tell_end, unit)
        if unit.cgroup is not None:
            if not unit.cgroup.is_populated():
                return None
            if patient and not told:
                unit.cgroup.signal(signal.SIGTERM)
            return Emptying(self._loop, unit.name, unit.cgroup, done, patient)
        others = still_living(unit.leftover_pids) if patient else {}
        if not others:
            return None
        if not told:
            signal_processes(others, signal.SIGTERM)
        return Parting(self._loop, unit.name, others, lambda: self._kin.living(unit), done)

    def end_strays(self, unit: Unit) -> None:
        """Schedule the end of processes that have left the session of a service without a cgroup."""
        self._strays.end(unit)

    # daemons in the background

    def _seek(self, unit: Unit) -> None:
        """Begin the search for the daemon, or resume that of an earlier spawnd, even if it is to stop by now."""
        unit.is_sought = unit.ended_clean = True
        unit.rest = search = Background(
            self._loop,
            self._pid_files,
            unit.service,
            partial(self._know_orphans, unit),
            partial(self._in_background, unit),
            lambda: self._kin.without_proof(unit, self._marks.orphans()),
            partial(self._found_background, unit),
            partial(self._give_up_background, unit),
        )
        self._owner.touch(unit)
        if unit.life.state is State.STOPPING:
            search.stop()

    def _know_orphans(self, unit: Unit, done: Callable[[], None]) -> None:
        """Call `done` once the marks of orphans are read that may belong to the unit; a cgroup needs no marks."""
        if unit.cgroup is not None:
            done()
        else:
            self._marks.look(done)

    def _in_background(self, unit: Unit) -> dict[int, Process]:
        """Return the unit's living processes by pid, without the main one."""
        if unit.cgroup is not None:
            return living_in(unit.cgroup)
        return self._kin.in_background(unit, self._marks.orphans())

    def _found_background(self, unit: Unit, process: Process | None) -> None:
        """Continue with the process that was chosen as the daemon, or with None if no process is left."""
        undecided = unit.undecided
        unit.rest = unit.ended_clean = None
        unit.is_sought = False
        if process is None:
            unit.last_exit = f"{NOTHING_LEFT} ({undecided})" if undecided else NOTHING_LEFT
            unit.ended = Ended(cause=unit.last_exit)
            self.end(unit, False)
            return
        is_ours = process.parent == os.getpid() and process.pid not in self._children.pids()
        run = Run(process.pid, started=process.started) if is_ours else _hold(unit, process)
        if run is None:  # it has just ended, and the next look finds no process; or it cannot be held yet
            self.end(unit, True)
            return
        unit.leftover_pids = still_living(unit.leftover_pids)
        unit.leftover_pids.pop(process.pid, None)
        self._take_over(unit, run)
        self._owner.in_background(unit)  # a record of the process alone would say that it is the first one
        self._owner.touch(unit)

    def _give_up_background(self, unit: Unit) -> None:
        """End all processes in the background, whichever of them is the daemon."""
        sentence = unit.undecided
        if unit.life.then is Then.FAIL and sentence:
            unit.ended, unit.last_exit = Ended(undecided=sentence), sentence
        unit.rest = unit.ended_clean = None
        unit.is_sought = False
        self.end(unit, False)

    # processes that are left

    def _others(self) -> set[int]:
        """Return the pids of leftovers of running services, which are to live on."""
        return {pid for unit in self._units() if unit.run is not None for pid in unit.leftover_pids}

    def _sought(self, orphans: Mapping[int, Marked]) -> set[int]:
        """Return the orphans that may be the daemon of a service which still looks for it."""
        seeking = (unit for unit in self._units() if goes_into_background(unit.service, unit.life))
        return {pid for unit in seeking for pid in self._kin.without_proof(unit, orphans)}

    def _tell_left(self, unit: Unit, count: int) -> None:
        """Note in the unit how many of its own strays were there at its end, and were killed."""
        ended = unit.ended
        if ended is not None and ended.status == 0 and unit.life.cause is Cause.EXIT:
            note_left(unit, ended, count)
            self._owner.touch(unit)


def _hold(unit: Unit, process: Process) -> Run | None:
    with logged(unit):
        return find_survivor(process.pid, process.started)
    return None


@contextmanager
def logged(unit: Unit) -> Iterator[None]:
    """Log failures of dealing with leftovers, and go on: the service itself has to go on."""
    try:
        yield
    except (StepError, OSError) as error:
        log.warning("%s: %s", unit.name, error)


class Strays:
    """Search for strays: kills those of ended services and calls `found(unit, count)` with their number.

    `left` returns the pids of processes that services are known to have left, and that may live on. `sought`
    returns those of the orphans that a service may yet find to be its daemon.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        marks: MarkReader,
        left: Callable[[], Collection[int]],
        sought: Callable[[Mapping[int, Marked]], Collection[int]],
        found: Callable[[Unit, int], None],
    ) -> None:
        self._loop = loop
        self._children = children
        self._marks = marks
        self._left = left
        self._sought = sought
        self._found = found
        self._seen: dict[int, int] = {}  # start times of the orphans at the last look, by pid
        self._ended: dict[Unit, None] = {}  # services whose main process has ended since the last look
        self._timer: Timer | None = None

    def end(self, unit: Unit) -> None:
        """Schedule the end of the strays of a service whose main process has ended."""
        self._ended[unit] = None
        if self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self._begin)

    def _begin(self) -> None:
        self._timer = None
        ended, self._ended = list(self._ended), {}
        if lost := [unit for unit in ended if unit.has_lost_children and unit.mark]:
            try:
                self._marks.read(strangers(self._children.pids()), partial(self._looked_everywhere, lost))
            except OSError as error:
                log.warning("cannot look for processes that services have left, trying again: %s", error)
                for unit in lost:
                    self.end(unit)
        if has_orphans(self._children.pids()):
            self._marks.look(lambda: self._looked(ended, self._marks.orphans()))
        else:
            self._looked(ended, {})

    def _looked_everywhere(self, lost: Sequence[Unit], marks: Mapping[int, Marked]) -> None:
        """Kill processes that services have left under a spawnd that was lost: they are orphans of process 1."""
        for unit in lost:
            try:
                if doomed := _own(unit, marks):
                    kill_processes(doomed)
            except OSError as error:
                log.warning("%s: cannot end the processes that it has left, trying again: %s", unit.name, error)
                self.end(unit)
            else:
                unit.has_lost_children = unit.run is not None and unit.run.pidfd >= 0

    def _looked(self, ended: Sequence[Unit], orphans: Mapping[int, Marked]) -> None:
        sought = self._sought(orphans)
        judged = {pid: marked for pid, marked in orphans.items() if pid not in sought}
        new = {pid: marked for pid, marked in judged.items() if self._seen.get(pid) != marked.started}
        self._seen = {pid: marked.started for pid, marked in judged.items()}
        own = {}
        for unit in ended:
            doomed = _own(unit, orphans)
            if doomed:
                try:
                    kill_processes(doomed)
                except OSError as error:
                    log.warning("%s: cannot end the processes that it has left, trying again: %s", unit.name, error)
                    self.end(unit)
                own[unit] = len(doomed.keys() & new.keys())
        without = {pid: marked.started for pid, marked in new.items() if not marked.service}
        if unproven := still_living(without).keys() - set(self._left()) if without else ():
            _tell_unproven(sorted(unproven))
        for unit, count in own.items():
            if count:
                self._found(unit, count)


def _own(unit: Unit, orphans: Mapping[int, Marked]) -> dict[int, int]:
    """Return the unit's orphans by pid that are older than its present start, which may have left newer ones."""
    before = _present_since(unit)
    proved = orphans.items() if unit.mark else ()
    return {pid: marked.started for pid, marked in proved if marked.service == unit.mark and marked.started < before}


def _present_since(unit: Unit) -> int:
    """Return the start time of the unit's present process, or of the first one if that is in the background."""
    run = unit.run
    is_daemon = isinstance(unit.rest, Background) or (run is not None and run.role is Role.MAIN)
    if unit.service.forking and is_daemon:
        return unit.first_started
    return run.started if run is not None else sys.maxsize


def _tell_unproven(pids: Sequence[int]) -> None:
    """Log processes that live on because nothing proves which service has left them."""
    names = [f"{pid} {name_of(pid)!r}" for pid in pids[:MOST_TOLD]]
    more = f" and {len(pids) - MOST_TOLD} more" if len(pids) > MOST_TOLD else ""
    text = "cannot tell which service left process%s %s%s behind: no mark is in the environment; leaving alone"
    notice(text, "es" if len(pids) > 1 else "", ", ".join(names), more)


def before_program(unit: Unit, run: Run, exit: Exit) -> StepError | None:
    """Return the failure of a start whose process was killed before it executed its program; None for any other end."""
    if run.has_run is not False:
        return None
    service = unit.service
    program = service.check[0] if run.role is Role.CHECK else service.exec
    memory = " (out of memory)" if _out_of_memory(unit) else ""
    if run.role.is_function:
        return failed(f"call {run.role.value}", "", 0, f"{exit.describe()}{memory} before it began")
    return failed("start", program, 0, f"{exit.describe()}{memory} before the program ran")


def note_exit(unit: Unit, run: Run, exit: Exit, failure: StepError | None) -> None:
    """Keep how a process ended, except for a process that went into the background: its service goes on."""
    if run.role.is_function:
        note_call(unit, run.role, run.answer, exit, failure)
    elif failure is not None:
        unit.last_exit = str(failure)
        unit.ended = Ended.of_step(failure.step, failure.path, failure.errno, failure.cause, failure.line)
    elif not (goes_into_background(unit.service, unit.life) and ended_well(unit, run, exit)):
        unit.ended = _ended_of(exit, _out_of_memory(unit))
        unit.last_exit = f"{exit.describe()}{' (out of memory)' if unit.ended.out_of_memory else ''}"
        # a program that crashes leaves its workers behind, not a daemon
        if run.left and exit == Exit() and not spares_others(unit.service, unit.life):
            note_left(unit, unit.ended, run.left)


def note_call(unit: Unit, role: Role, answer: Answer | None, exit: Exit, failure: StepError | None = None) -> None:
    """Keep the result of a function apart from the end of the process: the success of `stop` explains no end."""
    if failure is not None:
        unit.last_call = str(failure)
        ended = Ended.of_step(failure.step, failure.path, failure.errno, failure.cause, failure.line)
        unit.call_ended = replace(ended, function=role.value)
    else:
        unit.last_call = functions.describe(role, answer, exit)
        unit.call_ended = functions.ended_of(role, answer, exit)


def note_gone(unit: Unit) -> None:
    """Note that no spawnd has seen the end of the process or function."""
    if in_call(unit.life):
        function = "stop" if unit.life.step is Step.TEARDOWN else ""
        unit.last_call, unit.call_ended = GONE, Ended(function=function)
    else:
        unit.last_exit, unit.ended = GONE, Ended()


def note_left(unit: Unit, ended: Ended, count: int) -> None:
    unit.ended = replace(ended, left=count)
    unit.last_exit += left_behind(count)
    if ended.status == 0 and unit.life.failures <= 1:
        notice("%s: %s: %s", unit.name, unit.last_exit, background(unit.service))


def ended_well(unit: Unit, run: Run, exit: Exit) -> bool:
    """Whether the process ended well; a signal does not end a task, check or function well."""
    if run.answer is not None:
        return run.answer.ok
    if run.role is Role.MAIN and exit.known and not exit.signum and exit.status in unit.service.success_status:
        return True
    finishes = run.role is not Role.MAIN or unit.service.task
    return exit == Exit() if finishes else exit.clean


def has_succeeded(unit: Unit, run: Run) -> bool:
    """Whether a main process that is dead but not reaped has exited with a successful status."""
    found = os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) if run.pidfd < 0 else None
    if found is None or found.si_code != os.CLD_EXITED:
        return False
    return found.si_status == 0 or found.si_status in unit.service.success_status


def _out_of_memory(unit: Unit) -> bool:
    """Whether the kernel has killed a process of the unit for lack of memory since the last call."""
    kills = unit.cgroup.oom_kills() if unit.cgroup is not None else None
    if kills is None or kills <= unit.oom_kills:
        return False
    unit.oom_kills = kills
    return True


def _ended_of(exit: Exit, out_of_memory: bool) -> Ended:
    """Return the record of how a process ended."""
    if not exit.known:
        return Ended()
    if exit.signum:
        name = signal_name(exit.signum)
        return Ended(signum=exit.signum, signal=name, core=exit.core, out_of_memory=out_of_memory)
    return Ended(status=exit.status, out_of_memory=out_of_memory)
