"""The processes of the units: starting, watching, signalling and reaping them."""

from __future__ import annotations

import errno
import select
import signal
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from supervisor.definitions.service import Slot
from supervisor.errors import ServedFileError, StepError, is_shortage
from supervisor.lifecycle.life import (
    AT_REST,
    UP,
    Act,
    Ended,
    State,
    Step,
    begins_process,
    goes_into_background,
    leaves_unseen,
    lets_end,
    spares_older,
    spares_others,
    tells_all,
)
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager import functions
from supervisor.manager.aftermath import Aftermath, before_program, ended_well, has_succeeded, logged, note_exit
from supervisor.manager.background import Background
from supervisor.manager.emptying import Again, Emptying, Parting
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.kin import Kin
from supervisor.manager.launcher import Begun, Launcher
from supervisor.manager.notifications import SLICE, LastWords, Listener, take_notifications
from supervisor.manager.side_calls import SideCalls
from supervisor.manager.unit import Unit
from supervisor.notify.receiver import Receiver
from supervisor.process.cgroup import Leaf
from supervisor.process.children import UNKNOWN, Children, Exit
from supervisor.process.failure import failed, failure_of
from supervisor.process.held_descriptors import OPENED
from supervisor.process.network_namespace import namespace_of_process
from supervisor.process.paths import Sight, read_moved
from supervisor.process.run import Role, Run, has_begun
from supervisor.process.survivor import Doubt

ROLES = {  # of the processes that acts ask for
    Act.LAUNCH: Role.MAIN,
    Act.CHECK: Role.CHECK,
    Act.CALL_START: Role.START,
    Act.CALL_RESTART: Role.RESTART,
    Act.CALL_STOP: Role.STOP,
}
STARTS = (Role.CHECK, Role.START, Role.RESTART, Role.MAIN)  # roles of the first process of a start
READY_PAUSE = 0.1  # seconds from the close of a ready_fd until the failure of a process that lives on
NOTIFICATIONS = 64  # of one service in a turn of the loop, so that it does not delay the others


class Owner(Listener, Protocol):
    """The receiver of events of a unit's process."""

    def start_failed(self, unit: Unit, error: StepError) -> None: ...

    def started(self, unit: Unit) -> None:
        """Write down the new process, which is not released yet."""

    def flush(self) -> None: ...
    def executed(self, unit: Unit) -> None: ...
    def ready(self, unit: Unit) -> None: ...
    def in_background(self, unit: Unit) -> None: ...
    def ready_closed(self, unit: Unit) -> None: ...
    def exited(self, unit: Unit, clean: bool, reason: str) -> None: ...


class Processes:
    """The processes of all units, which `units` returns by name: one each, from `start` until its end is told."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        host: HostFacts,
        sources: Sources,
        owner: Owner,
        units: Callable[[], Mapping[str, Unit]],
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._units = units
        self._by_pid: dict[int, Unit] = {}
        self._asked: dict[Unit, object] = {}  # units whose process is being made, with what tells it from others
        self._children = children
        self._subtree = host.subtree
        self._outputs = host.outputs
        self._launcher = Launcher(loop, children, host, sources, self.hear)
        self._pipes = self._launcher.pipes
        self.close_receiver = self._launcher.close_receiver

        def values() -> Iterable[Unit]:
            return units().values()

        self._kin = Kin(children, values, owner.touch)
        self.side_calls = SideCalls(loop, self._launcher, self._kin, units)
        self.aftermath = Aftermath(loop, children, self._kin, owner, values, self.take_over, host.outputs)

    def start(self, unit: Unit, role: Role, looks: bool = True) -> None:
        """Start a process.

        If a path turns out to lead elsewhere by now, the file is opened anew and the process started again
        (`_renew`). If the server of a missing file may never answer, the first process only opens files.
        """
        asked = self._asked[unit] = object()
        looks = looks and role in STARTS
        if looks:
            unit.stale = ""  # it is found out anew
            unit.status_text = ""  # of the process before
        try:
            run = self._begin(unit, role, partial(self._forked, unit, asked), looks)
        except Exception as error:
            del self._asked[unit]
            if not isinstance(error, StepError | OSError):
                log.exception("%s: unexpected error in a start; going on", unit.name)
            self._owner.start_failed(unit, failure_of(error))
            return
        if run is not None:
            self._begun(unit, run)

    def _begun(self, unit: Unit, run: Run) -> None:
        """Go on with a new process, which waits for its release."""
        del self._asked[unit]
        if run.role is Role.MAIN and unit.service.forking:
            unit.first_started = run.started
        self._take_in(unit, run)
        try:
            self._owner.started(unit)
        finally:
            run.release()  # whatever became of that, the service must not hang

    def _forked(self, unit: Unit, asked: object, result: Run | StepError) -> None:
        """Go on with the process that a fork server has made, unless it is not wanted any more."""
        if self._asked.get(unit) is asked:
            if isinstance(result, StepError):
                del self._asked[unit]
                self._owner.start_failed(unit, result)
            else:
                self._begun(unit, result)
        elif isinstance(result, Run):
            self._children.when_reaped(result.pid, lambda: None)
            result.close()  # it is never released, and ends

    def drop(self, unit: Unit) -> bool:
        """Give up the process that a fork server is to make for the unit; return False if there is none."""
        if self._asked.pop(unit, None) is None:
            return False
        late = failed("fork", "", errno.ETIMEDOUT, "not done in time")
        if unit.life.step in (Step.TEARDOWN, Step.LAST, Step.TOLD):
            self._owner.start_failed(unit, late)
        else:
            unit.ended = Ended.of_step(late.step, late.path, late.errno, late.cause)
            self._owner.exited(unit, False, str(late))
        return True

    def _begin(self, unit: Unit, role: Role, begun: Begun, looks: bool) -> Run | None:
        self._outputs.end_line(unit.name)  # of a process whose end no spawnd has seen, or whose pipe had no room
        try:
            if role is Role.MAIN:
                return self._launcher.launch(unit, self, begun, looks)
            if role is Role.CHECK:
                return self._launcher.check(unit, self, looks)
            return self._launcher.call(unit, role, self, begun, looks)
        except ServedFileError:
            return self._launcher.open_files(unit, role, self)

    def _renew(self, unit: Unit, run: Run, sights: Mapping[Slot, Sight]) -> None:
        """Open anew what has changed while the service has no process, and start the process with that."""
        try:
            unit.renew(sights)
        except Exception:
            log.exception("%s: unexpected error in opening files anew; going on", unit.name)
        self.start(unit, run.role, looks=False)

    def _take_in(self, unit: Unit, run: Run) -> None:
        """Make this the unit's process and watch its descriptors."""
        unit.run = run
        self._by_pid[run.pid] = unit
        if run.error_fd >= 0:
            self._loop.watch(run.error_fd, select.EPOLLIN, lambda _events: self._read_errors(unit, run))
        if run.output_fd >= 0:
            self._pipes.watch(run.output_fd, unit.name, lambda: self._read_output(run))
        if run.ready_fd >= 0:
            self._pipes.watch(run.ready_fd, unit.name, lambda: self._read_ready(unit, run))

    def take_over(self, unit: Unit, run: Run) -> None:
        """Go on with a process that runs already: a child of ours, or a process that an earlier spawnd left behind."""
        if unit.service.netns and run.role is Role.MAIN:
            run.netns = namespace_of_process(run.pid)
        self._take_in(unit, run)
        if run.pidfd < 0:
            self._children.register(run.pid, self)
            return
        self._loop.watch(run.pidfd, select.EPOLLIN, lambda _events: self._survivor_ended(run))
        if run.in_doubt:
            Doubt(self._loop, run, lambda: self._survivor_ended(run))

    def _survivor_ended(self, run: Run) -> None:
        self._loop.unwatch(run.pidfd)
        self._conclude(run, partial(self.died, run.pid))

    def _conclude(self, run: Run, judge: Callable[[], bool | None]) -> None:
        """Let a dead process be reaped, unless `judge` returns False: more of what it has said is to be read."""
        is_judged: bool | None = True
        try:
            is_judged = judge()
        finally:
            if is_judged is not False and run.pidfd < 0:
                self._children.finish(run.pid)
            elif is_judged is not False:
                self.reaped(run.pid, UNKNOWN)

    def bind_receiver(self, unit: Unit) -> None:
        """Make the notification socket of a unit that runs already."""
        with logged(unit):
            self._launcher.bind_receiver(unit)

    def listen(self, unit: Unit, receiver: Receiver) -> None:
        """Give the unit a notification socket; takes it over."""
        self._launcher.listen(unit, receiver)

    def signal(self, unit: Unit, signum: int) -> bool:
        """Signal the main process, or the process of a check or function; return False if there is none."""
        if isinstance(unit.rest, Background) and unit.life.state is State.STOPPING:
            unit.rest.stop()
        if unit.run is None:
            return False
        unit.run.kill(signum)
        return True

    def tell_to_stop(self, unit: Unit) -> None:
        """Send the stop signal: to all processes if `kill_mode` is "group", else to the main one."""
        service, run = unit.service, unit.run
        if self.drop(unit):
            return
        if run is not None:
            with logged(unit):
                self._kin.before_stop(unit, run)
        if run is None or run.role is not Role.MAIN or not tells_all(service, unit.life):
            # an acceptor ends by TERM alone; its sessions are told once it is gone
            self.signal(unit, service.stop_signal if service.accept is None else signal.SIGTERM)
        elif unit.cgroup is not None:
            with logged(unit):
                unit.cgroup.signal(service.stop_signal)
        else:
            with logged(unit):
                self._kin.signal_all(unit, run, service.stop_signal)

    def kill(self, unit: Unit) -> None:
        """Kill every process of the unit, or the main one alone if the others are to live on."""
        if self.drop(unit):
            return
        if unit.run is None and unit.ended_clean is None:
            # without a process, no end would ever be reported
            self._owner.exited(unit, False, "it has no process")
        elif isinstance(unit.rest, Background):
            unit.rest.kill()
        elif unit.rest is not None:  # what was told to end, even if it would live on after the present order
            self._kill_rest(unit, unit.rest)
        elif spares_others(unit.service, unit.life):
            self.signal(unit, signal.SIGKILL)
        else:
            if unit.run is not None:
                _kill_group(unit, unit.run)
            if unit.cgroup is not None:
                with logged(unit):
                    unit.cgroup.kill()

    def _kill_rest(self, unit: Unit, rest: Again | Emptying | Parting) -> None:
        if unit.rest is not rest:
            return
        try:
            rest.kill()
        except (StepError, OSError) as error:
            log.warning("%s: %s", unit.name, error)
            if is_shortage(error):
                Again(self._loop, lambda _is_overdue: self._kill_rest(unit, rest))

    def release(self, unit: Unit) -> None:
        """End the remaining processes of a unit without a main process, and close its descriptors.

        Sessions that are to live on stay in its cgroup, in the table of its store, and known by pid.
        """
        unit.status_text = unit.disconnected = unit.stale = ""
        unit.flushed, unit.suspects = 0, {}
        self._launcher.plans.pop(unit.name, None)
        keeps = bool(unit.life.keeps_sessions)
        steps: list[Callable[[], None]] = [unit.table.close]
        if not keeps:
            steps.append(unit.store.clear)
        if unit.receiver is not None:
            steps.append(partial(self._launcher.drop_receiver, unit))
        if unit in self.side_calls.reloads:
            steps.insert(0, self.side_calls.reloads[unit].cancel)
        if unit.leftover_pids and not keeps:
            steps.append(partial(self._kin.kill, unit))
        for step in steps:
            with logged(unit):
                step()
        if keeps:
            return
        if unit.cgroup is None:
            self.aftermath.end_strays(unit)
        else:
            leaf, unit.cgroup = unit.cgroup, None
            self._empty(unit, leaf)

    def sweep(self, unit: Unit) -> None:
        """End what an earlier spawnd has left: processes older than the present one, the cgroup of a unit at rest."""
        if unit.has_lost_children and not spares_older(unit.service, unit.life):
            self.aftermath.end_strays(unit)
        if unit.life.state in AT_REST and unit.cgroup is None and self._subtree is not None:
            leaf = self._subtree.leaf(unit.name)
            if leaf.exists():
                self._empty(unit, leaf)

    def _empty(self, unit: Unit, leaf: Leaf) -> None:
        """End what is left in the cgroup of a unit at rest, and remove it; where the host has no room, try again."""
        if self._is_used(unit.name):
            return
        try:
            if leaf.is_populated():
                Emptying(self._loop, unit.name, leaf, lambda: self._remove(unit, leaf))
            else:
                leaf.remove()
        except (StepError, OSError) as error:
            log.warning("%s: %s", unit.name, error)
            if is_shortage(error):
                Again(self._loop, lambda _is_overdue: self._empty(unit, leaf))

    def _remove(self, unit: Unit, leaf: Leaf) -> None:
        if not self._is_used(unit.name):
            with logged(unit):
                leaf.remove()

    def _is_used(self, name: str) -> bool:
        """Whether a unit of this name was started again meanwhile, and uses the cgroup."""
        unit = self._units().get(name)
        return unit is not None and unit.cgroup is not None

    @staticmethod
    def set_limits(unit: Unit) -> None:
        """Apply the resource limits of its definition to a running service."""
        if unit.cgroup is not None:
            with logged(unit):
                for sentence in unit.cgroup.prepare(unit.service.shared_resources):
                    log.warning("%s: %s", unit.name, sentence)

    # the pipes of a process

    def _read_errors(self, unit: Unit, run: Run) -> None:
        if run.error_fd < 0 or not run.read_errors():
            return
        self._loop.unwatch(run.error_fd)
        run.close_error_fd()
        self._launcher.tell(run.notices)
        self._learn_exec(unit, run)

    def _learn_exec(self, unit: Unit, run: Run) -> None:
        """Tell of the exec. If the report has ended for another reason, the end of the process is the event."""
        executes_nothing = run.failure or run.files is not None or run.role.is_function
        if not executes_nothing and run.executes() and run.role is Role.MAIN:
            self._owner.executed(unit)

    def _read_output(self, run: Run) -> None:
        if run.output_fd >= 0 and run.read_output(self._pipes.read):
            self._close(run.take_output_fd())

    def _read_ready(self, unit: Unit, run: Run) -> None:
        said = run.said_ready(self._pipes.read) if run.ready_fd >= 0 else False
        if said is False:
            return
        self._close(run.take_ready_fd())
        if said:
            self._owner.ready(unit)
        else:  # a dying process closes it just before its end is reported, and its end says more
            self._loop.call_later(READY_PAUSE, lambda: self._ready_closed(unit, run))

    def _close(self, fds: Iterable[int]) -> None:
        for fd in fds:
            self._pipes.close(fd)

    def _ready_closed(self, unit: Unit, run: Run) -> None:
        if unit.run is run:
            self._owner.ready_closed(unit)

    def hear(self, unit: Unit) -> None:
        """Take some of the messages that the service has sent."""
        take_notifications(unit, self._owner, NOTIFICATIONS, SLICE)

    # the end of a process

    def died(self, pid: int) -> bool:
        """Read all that the process said before its death is judged; return False if more is to be read."""
        unit, run = self._of(pid)
        self._read_errors(unit, run)
        if run.has_run is None:
            self._learn_exec(unit, run)
        pipes = (run.ready_fd, run.output_fd)
        for fd in pipes:
            self._pipes.expect_end(fd)
        self._read_ready(unit, run)
        self._read_output(run)
        hear = partial(self._hear_last, unit, run)
        return not self._pipes.last_reads(pipes, partial(self._conclude, run, hear)) and hear()

    def _hear_last(self, unit: Unit, run: Run) -> bool:
        """Read the last messages and judge the death; return False if they are read in later turns of the loop."""
        if unit.receiver is not None:
            words = LastWords(self._loop, unit, self._owner)
            if not words.hear():
                words.hear_rest(partial(self._conclude, run, partial(self._judge, unit, run)))
                return False
        self._judge(unit, run)
        return True

    def _judge(self, unit: Unit, run: Run) -> None:
        """Judge the death, and kill the process group while its id is still taken."""
        if run.role is Role.MAIN and unit.cgroup is not None and unit.life.state in UP:
            run.left = unit.cgroup.count()
        if run.role is Role.MAIN and goes_into_background(unit.service, unit.life) and has_succeeded(unit, run):
            self._kin.after_background(unit, run)
        elif run.role is Role.MAIN and lets_end(unit.service, unit.life):
            self._kin.after_end(unit, run)
        elif run.role is Role.CHECK or not spares_others(unit.service, unit.life, self._function_succeeded(unit, run)):
            _kill_group(unit, run)
        else:
            self._kin.after_death(unit, run)

    def _function_succeeded(self, unit: Unit, run: Run) -> bool:
        """Whether the process ran a function that has succeeded."""
        if not run.role.is_function:
            return False
        run.has_run = has_begun(path := self._launcher.answer_path(unit, run.role))
        run.answer = self.aftermath.learn_answer(path)
        return functions.function_succeeded(run.answer, run.pid, run.pidfd < 0)

    def reaped(self, pid: int, exit: Exit) -> None:
        unit, run = self._of(pid)
        del self._by_pid[pid]
        unit.run = None
        for fd in (run.error_fd, run.pidfd):
            if fd >= 0:
                self._loop.unwatch(fd)
        self._close([*run.take_ready_fd(), *run.take_output_fd()])
        run.close()
        failure = run.setup_error() or before_program(unit, run, exit)
        if run.files is not None:
            unit.table.take_over(failure, unit.service, run.files)
        if failure is not None and begins_process(unit.life) and self._begins_again(unit, run, failure):
            return
        note_exit(unit, run, exit, failure)
        clean = failure is None and ended_well(unit, run, exit)
        if run.role is Role.CHECK:
            unit.check_output = () if clean else tuple(run.output_lines())
            for line in unit.check_output:
                log.warning("%s: check: %s", unit.name, line)
        if failure is None and run.started == unit.first_started and run.role is Role.MAIN:
            unit.is_sought = leaves_unseen(unit.service, unit.life)
        self.aftermath.end(unit, clean)

    def _begins_again(self, unit: Unit, run: Run, failure: StepError) -> bool:
        """Start the process again if it has ended only because of the files of its table."""
        if sights := read_moved(failure):
            self._renew(unit, run, sights)
            return True
        if failure.step == OPENED:
            self.start(unit, run.role)
            return True
        return False

    def _of(self, pid: int) -> tuple[Unit, Run]:
        unit = self._by_pid[pid]
        if unit.run is None or unit.run.pid != pid:
            raise RuntimeError(f"{unit.name}: process {pid} is not its own")
        return unit, unit.run


def _kill_group(unit: Unit, run: Run) -> None:
    """Kill the process group, or the process alone if it is no child of ours and its cgroup is killed as well.

    Finding the group of a process that is no child may take a look at all processes of the system.
    """
    if run.pidfd >= 0 and unit.cgroup is not None:
        run.kill(signal.SIGKILL)
    else:
        run.kill_group()
