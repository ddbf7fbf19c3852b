"""The processes of the units: started, watched, reaped, and what they leave behind ended."""

from __future__ import annotations

import select
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from supervisor.errors import StepError
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.outlook import spares_others
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager import functions
from supervisor.manager.asides import Asides
from supervisor.manager.emptying import Emptying
from supervisor.manager.launcher import Host, Launcher
from supervisor.manager.notifications import Listener, take_notifications
from supervisor.manager.texts import Texts
from supervisor.manager.unit import Unit
from supervisor.notify.receiver import MAX_AT_ONCE, Receiver
from supervisor.process.answer import take_answer
from supervisor.process.cgroup import Leaf
from supervisor.process.children import UNKNOWN, Children, Exit, signal_name
from supervisor.process.failure import failure_of
from supervisor.process.leftovers import (
    has_orphans,
    kill_processes,
    kill_sessions,
    processes_in,
    still_living,
)
from supervisor.process.network_namespace import namespace_of_process
from supervisor.process.run import Role, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTIFICATIONS = 64  # of one service in a turn of the loop, so that none keeps the others waiting


class Owner(Listener, Protocol):
    """Who is told what happened to a unit's process."""

    def start_failed(self, unit: Unit, error: StepError) -> None: ...

    def started(self, unit: Unit) -> None:
        """It has a new process, which is not released yet: to be written down."""

    def executed(self, unit: Unit) -> None: ...
    def ready(self, unit: Unit) -> None: ...
    def exited(self, unit: Unit, clean: bool, reason: str) -> None: ...


class Processes:
    """A unit has a process from `start` until the owner is told that it failed or exited: always one of them."""

    def __init__(self, loop: Loop, children: Children, host: Host, texts: Texts, owner: Owner) -> None:
        self._loop = loop
        self._owner = owner
        self._by_pid: dict[int, Unit] = {}
        self._children = children
        self._subtree = host.subtree
        self._launcher = Launcher(loop, children, host, texts, self._on_notification)
        self.asides = Asides(loop, self._launcher)

    def start(self, unit: Unit, role: Role) -> None:
        try:
            run = self._begin(unit, role)
        except Exception as error:
            if not isinstance(error, StepError | OSError):
                log.exception("%s: unexpected error in a start; going on", unit.name)
            self._owner.start_failed(unit, failure_of(error))
            return
        self._take_in(unit, run)
        try:
            self._owner.started(unit)
        finally:
            run.release()  # whatever became of that, the service is not to hang

    def _begin(self, unit: Unit, role: Role) -> Run:
        if role is Role.MAIN:
            return self._launcher.launch(unit, self)
        return self._launcher.check(unit, self) if role is Role.CHECK else self._launcher.call(unit, role, self)

    def _take_in(self, unit: Unit, run: Run) -> None:
        """Make this the unit's process and hear what comes from it."""
        unit.run = run
        self._by_pid[run.pid] = unit
        if run.error_fd >= 0:
            self._loop.watch(run.error_fd, select.EPOLLIN, lambda _events: self._read_errors(unit, run))
        if run.ready_fd >= 0:
            self._loop.watch(run.ready_fd, select.EPOLLIN, lambda _events: self._read_ready(unit, run))

    def resume(self, unit: Unit, run: Run) -> None:
        """Go on with a process that runs already: a child of ours, or one that an earlier spawnd left behind."""
        if unit.service.netns and run.role is Role.MAIN:
            run.netns = namespace_of_process(run.pid)
        self._take_in(unit, run)
        if run.pidfd < 0:
            self._children.register(run.pid, self)
            return
        self._loop.watch(run.pidfd, select.EPOLLIN, lambda _events: self._survivor_ended(run))

    def _survivor_ended(self, run: Run) -> None:
        self._loop.unwatch(run.pidfd)
        try:
            self.died(run.pid)
        finally:
            self.reaped(run.pid, UNKNOWN)

    def bind_receiver(self, unit: Unit) -> None:
        """Make the notification socket of a unit that runs already."""
        with _logged(unit):
            self._launcher.bind_receiver(unit)

    def listen(self, unit: Unit, receiver: Receiver) -> None:
        """Give the unit a notification socket; takes it over."""
        self._launcher.listen(unit, receiver)

    def signal(self, unit: Unit, signum: int) -> bool:
        """Signal the main process, or the check command while that runs; False where there is none."""
        if unit.run is None:
            return False
        unit.run.kill(signum)
        return True

    def kill(self, unit: Unit) -> None:
        """KILL to every process of the unit, to the main one alone where the others are to live on."""
        if unit.run is None and unit.ended_clean is None:
            # nobody is there to be killed, and so nobody's end would be heard of
            self._owner.exited(unit, False, "it has no process")
        elif spares_others(unit.service, unit.life):
            self.signal(unit, signal.SIGKILL)
        else:
            if unit.run is not None:
                _kill_group(unit, unit.run)
            if unit.cgroup is not None:
                with _logged(unit):
                    unit.cgroup.kill()

    def release(self, unit: Unit) -> None:
        """End what still runs of a unit without a main process, and close what is open for it."""
        unit.status_text = ""
        self.asides.cancel(unit)
        unit.table.close()
        unit.store.clear()
        if unit.receiver is not None:
            self._loop.unwatch(unit.receiver.fileno())
            unit.receiver.close()
            unit.receiver = None
        self._kill_left(unit)
        if unit.cgroup is not None:
            leaf, unit.cgroup = unit.cgroup, None
            self._empty(unit, leaf)

    def sweep(self, unit: Unit) -> None:
        """Remove the cgroup of a unit at rest that an earlier spawnd did not come to remove."""
        if unit.cgroup is None and self._subtree is not None:
            leaf = self._subtree.leaf(unit.name)
            if leaf.exists():
                self._empty(unit, leaf)

    def _empty(self, unit: Unit, leaf: Leaf) -> None:
        with _logged(unit):
            if leaf.is_populated():
                Emptying(self._loop, unit.name, leaf, lambda: self._remove(unit, leaf))
            else:
                leaf.remove()

    @staticmethod
    def _remove(unit: Unit, leaf: Leaf) -> None:
        if unit.cgroup is None:  # else it was started again meanwhile, and the cgroup is its own
            with _logged(unit):
                leaf.remove()

    @staticmethod
    def set_limits(unit: Unit) -> None:
        """Give a running service the resources that its definition says."""
        if unit.cgroup is not None:
            with _logged(unit):
                for sentence in unit.cgroup.prepare(unit.service.resources):
                    log.warning("%s: %s", unit.name, sentence)

    # the pipes of a process

    def _read_errors(self, unit: Unit, run: Run) -> None:
        if run.error_fd < 0 or not run.read_errors():
            return
        self._loop.unwatch(run.error_fd)
        run.close_error_fd()
        # with a failure to be told the process ends, and its end is the event
        if not run.failure and run.role is Role.MAIN:
            self._owner.executed(unit)

    def _read_ready(self, unit: Unit, run: Run) -> None:
        said = run.said_ready() if run.ready_fd >= 0 else False
        if said is False:
            return
        self._loop.unwatch(run.ready_fd)
        run.close_ready_fd()
        if said:
            self._owner.ready(unit)

    def _on_notification(self, unit: Unit) -> None:
        take_notifications(unit, self._owner, NOTIFICATIONS)

    # its end

    def died(self, pid: int) -> None:
        """All that it said is heard before its death is handled; its group is ended while the id is its own."""
        unit, run = self._of(pid)
        self._read_errors(unit, run)
        self._read_ready(unit, run)
        take_notifications(unit, self._owner, MAX_AT_ONCE)
        if run.role is Role.CHECK or not spares_others(unit.service, unit.life, self._is_clean(unit, run)):
            _kill_group(unit, run)
        elif unit.cgroup is None:
            if run.pidfd >= 0:
                others = processes_in(pid)
            else:
                is_any_left = has_orphans({*self._children.pids(), pid})
                left = self._children.orphans.living_in({*unit.sessions, pid}) if is_any_left else []
                unit.sessions = {process.session for process in left}
                others = {process.pid: process.started for process in left}
            # also those that are found by their session: a spawnd that takes over finds its orphans by these alone
            unseen = {pid: started for pid, started in unit.others.items() if others.get(pid) != started}
            unit.others = still_living(unseen) | others

    def _is_clean(self, unit: Unit, run: Run) -> bool:
        """Whether it was a function, and has succeeded."""
        if not run.role.is_function:
            return False
        run.answer = take_answer(self._launcher.answer_path(unit, run.role))
        return functions.is_clean(run.answer, run.pid, run.pidfd < 0)

    def reaped(self, pid: int, exit: Exit) -> None:
        unit, run = self._of(pid)
        del self._by_pid[pid]
        unit.run = None
        for fd in (run.error_fd, run.ready_fd, run.pidfd):
            if fd >= 0:
                self._loop.unwatch(fd)
        run.close()
        failure = run.setup_error()
        if failure is not None:
            unit.last_exit = str(failure)
            unit.ended = Ended.of_step(failure.step, failure.path, failure.errno, failure.cause)
        elif run.role.is_function:
            unit.last_exit = functions.describe(run.role, run.answer, exit)
            unit.ended = functions.ended_of(run.role, run.answer, exit)
        else:
            unit.ended = ended_of(exit, self._out_of_memory(unit))
            unit.last_exit = f"{exit.describe()}{' (out of memory)' if unit.ended.out_of_memory else ''}"
        self.end_others(unit, failure is None and _is_clean(unit, run, exit))

    def _of(self, pid: int) -> tuple[Unit, Run]:
        unit = self._by_pid[pid]
        if unit.run is None or unit.run.pid != pid:
            raise RuntimeError(f"{unit.name}: process {pid} is not its own")
        return unit, unit.run

    @staticmethod
    def _out_of_memory(unit: Unit) -> bool:
        """Whether the kernel has killed something of the unit for want of memory since it was last asked."""
        kills = unit.cgroup.oom_kills() if unit.cgroup is not None else None
        if kills is None or kills <= unit.oom_kills:
            return False
        unit.oom_kills = kills
        return True

    def end_others(self, unit: Unit, clean: bool) -> None:
        """Tell the owner of the end once all is gone that has to be: its group was killed with its leader."""

        def done() -> None:
            unit.ended_clean = None
            self._owner.exited(unit, clean, unit.last_exit)

        if not spares_others(unit.service, unit.life, clean):
            if unit.cgroup is None:
                self._kill_left(unit)
            elif unit.cgroup.is_populated():
                with _logged(unit):
                    Emptying(self._loop, unit.name, unit.cgroup, done)
                    unit.ended_clean = clean
                    self._owner.touch(unit)
                    return
        done()

    def _kill_left(self, unit: Unit) -> None:
        """KILL to what it has left behind and was to live on until now, where there is no cgroup that holds it."""
        if unit.sessions:
            kill_sessions(unit.sessions, spare=self._by_pid.keys())
            unit.sessions.clear()
        if unit.others:
            kill_processes(unit.others)
            unit.others.clear()


def _is_clean(unit: Unit, run: Run, exit: Exit) -> bool:
    """Whether it ended well: what has something to finish has not, where a signal ended it."""
    if run.answer is not None:
        return run.answer.ok
    finishes = run.role is not Role.MAIN or unit.service.task
    return exit == Exit() if finishes else exit.clean


def _kill_group(unit: Unit, run: Run) -> None:
    """KILL to the group of its process, to that alone where it is no child of ours and its cgroup is killed besides.

    To find the group of one that is no child may take a look at all processes that there are.
    """
    if run.pidfd >= 0 and unit.cgroup is not None:
        run.kill(signal.SIGKILL)
    else:
        run.kill_group()


def ended_of(exit: Exit, out_of_memory: bool) -> Ended:
    """How a process ended, as it is kept."""
    if not exit.known:
        return Ended()
    if exit.signum:
        name = signal_name(exit.signum)
        return Ended(signum=exit.signum, signal=name, core=exit.core, out_of_memory=out_of_memory)
    return Ended(status=exit.status, out_of_memory=out_of_memory)


@contextmanager
def _logged(unit: Unit) -> Iterator[None]:
    """Log what cannot be done to what a service leaves behind, and go on: the service itself must."""
    try:
        yield
    except (StepError, OSError) as error:
        log.warning("%s: %s", unit.name, error)
