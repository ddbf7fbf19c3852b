"""Processes beside a running service: its check before a reload, its functions `reload` and `status`.

Their results go to the clients that asked, and change nothing in the life of the service.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from supervisor.errors import StepError
from supervisor.lifecycle.life import UP, State
from supervisor.loop.loop import Loop, Timer
from supervisor.manager import functions
from supervisor.manager.kin import Kin
from supervisor.manager.launcher import Launcher
from supervisor.manager.unit import Unit
from supervisor.process.children import Exit
from supervisor.process.failure import failure_of
from supervisor.process.run import Answer, Role, Run, take_answer

Done = Callable[[Answer], None]  # an answer that is not ok says why
Reloaded = Callable[[str], None]  # '' or the problem
AT_ONCE = 8  # reloads with a process at a time: hundreds would delay everything else


class SideCall:
    """One such process; calls `done` once, perhaps at once. Owns the process."""

    def __init__(self, loop: Loop, launcher: Launcher, kin: Kin, unit: Unit, role: Role, done: Done) -> None:
        self._loop = loop
        self._launcher = launcher
        self._pipes, self._children = launcher.pipes, launcher.children
        self._kin = kin
        self._unit = unit
        self._role = role
        self._done = done
        self._run: Run | None = None
        self._answer: Answer | None = None
        self._timer: Timer | None = None
        self._is_late = False
        self._is_cancelled = False

    def begin(self) -> None:
        """Start the process. Its time limit is that of a start."""
        unit = self._unit
        try:
            is_check = self._role is Role.CHECK
            call = partial(self._launcher.call, unit, self._role, self, self._begun)
            run = self._launcher.check(unit, self) if is_check else call()
        except (StepError, OSError) as error:
            self._done(Answer(False, str(failure_of(error))))
            return
        if run is not None:
            self._begun(run)

    def _begun(self, run: Run | StepError) -> None:
        if isinstance(run, StepError):
            self._done(Answer(False, str(run)))
            return
        self._run = run
        self._loop.watch(run.error_fd, select.EPOLLIN, lambda _events: self._read_errors(run))
        if run.output_fd >= 0:
            self._pipes.watch(run.output_fd, self._unit.name, lambda: self._read_output(run))
        if self._is_cancelled:
            run.kill_group()
        run.release()
        timeout = self._unit.service.start_timeout
        if timeout is not None:
            self._timer = self._loop.limit_later(timeout, self._too_late)

    def cancel(self) -> None:
        """Kill the process: its result is not needed any more."""
        self._is_cancelled = True
        if self._run is not None:
            self._run.kill_group()

    def _too_late(self) -> None:
        self._is_late = True
        self.cancel()

    def _read_errors(self, run: Run) -> None:
        if run.read_errors():
            self._loop.unwatch(run.error_fd)

    def _read_output(self, run: Run) -> None:
        if run.output_fd >= 0 and run.read_output(self._pipes.read):
            self._close_output(run)

    def _close_output(self, run: Run) -> None:
        for fd in run.take_output_fd():
            self._pipes.close(fd)

    # as a child

    def died(self, pid: int) -> bool:
        run = self._run
        if run is None:
            return True
        run.read_errors()
        self._pipes.expect_end(run.output_fd)
        self._read_output(run)
        if self._pipes.last_reads((run.output_fd,), partial(self._finish, pid, run)):
            return False
        self._judge(pid, run)
        return True

    def _finish(self, pid: int, run: Run) -> None:
        """Judge the death after the rest of the output was read in a later turn of the loop."""
        try:
            self._judge(pid, run)
        finally:
            self._children.finish(pid)

    def _judge(self, pid: int, run: Run) -> None:
        if self._role.is_function:
            self._answer = take_answer(self._launcher.answer_path(self._unit, self._role))
        if self._role is not Role.RELOAD or not functions.function_succeeded(self._answer, pid, is_child=True):
            run.kill_group()
        else:
            # processes that it has started belong to the service, and end with it
            self._kin.after_death(self._unit, run)

    def reaped(self, pid: int, exit: Exit) -> None:
        run, self._run = self._run, None
        if run is None:
            raise RuntimeError(f"{self._unit.name}: process {pid} is not its own")
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(run.error_fd)
        self._close_output(run)
        run.close()
        if self._unit.run is None:  # else the main process may be in the middle of a line
            self._launcher.outputs.end_line(self._unit.name)
        failure = run.setup_error()
        if failure is not None:
            self._done(Answer(False, str(failure)))
        elif self._answer is not None and self._answer.ok:
            self._done(self._answer)
        else:
            self._done(Answer(self._answer is None and exit == Exit(), self._describe(exit, run)))

    def _describe(self, exit: Exit, run: Run) -> str:
        if self._is_late:
            return f"{self._role.value} not finished in time"
        if self._role.is_function:
            return functions.describe(self._role, self._answer, exit) if exit != Exit() or self._answer else ""
        return ": ".join([exit.describe(), *run.output_lines()[-1:]])


class ServiceReload:
    """One reload, which never restarts the service; calls each of `asked` once with '' or with the problem."""

    def __init__(self, loop: Loop, launcher: Launcher, kin: Kin, unit: Unit, ended: Callable[[], object]) -> None:
        self.asked: list[Reloaded] = []
        self.calls = False  # whether the function is running
        self._loop = loop
        self._launcher = launcher
        self._kin = kin
        self._unit = unit
        self._main: Run | None = None
        self._ended = ended
        self._side_call: SideCall | None = None

    @property
    def has_process(self) -> bool:
        """Whether the reload takes a process, rather than just a signal."""
        service = self._unit.service
        return bool(service.check) or "reload" in service.functions

    def begin(self) -> None:
        unit = self._unit
        self._main = unit.run
        if unit.service.reload_signal is None and "reload" not in unit.service.functions:
            self._end("it has no reload_signal" if unit.service.has_process else "it has no function reload")
        elif not self._is_up():
            self._end("it is not running")
        elif unit.life.state is State.STARTING:  # a signal would end a process without its handler
            self._end("it is still starting")
        elif unit.service.check:
            self._run(Role.CHECK, self._checked)
        else:
            self._call()

    def cancel(self) -> None:
        """End the process of this reload: the service is at rest."""
        if self._side_call is not None:
            self._side_call.cancel()

    def _is_up(self) -> bool:
        unit = self._unit
        if unit.service.has_process:
            return unit.run is not None and unit.run.role is Role.MAIN
        return unit.life.state in UP

    def _run(self, role: Role, done: Callable[[Answer], None]) -> None:
        self._side_call = SideCall(self._loop, self._launcher, self._kin, self._unit, role, done)
        self._side_call.begin()

    def _checked(self, answer: Answer) -> None:
        if answer.ok:
            self._call()
        else:
            self._end(f"check failed: {answer.text}")

    def _call(self) -> None:
        if self._has_changed():
            self._end("it is not running any more")
        elif "reload" in self._unit.service.functions:
            self.calls = True
            self._run(Role.RELOAD, self._called)
        else:
            self._signal()

    def _called(self, answer: Answer) -> None:
        self.calls = False
        if not answer.ok:
            self._end(answer.text)
        elif self._unit.service.reload_signal is None:
            self._end("")
        else:
            self._signal()

    def _has_changed(self) -> bool:
        """Whether the service has another process by now, or is about to stop."""
        return self._unit.run is not self._main or self._unit.life.state not in UP

    def _signal(self) -> None:
        run, signum = self._unit.run, self._unit.service.reload_signal
        if run is None or signum is None or self._has_changed():
            self._end("it is not running any more")
            return
        run.kill(signum)
        self._end("")

    def _end(self, problem: str) -> None:
        self._side_call = None
        self._ended()
        for done in self.asked:
            done(problem)


class SideCalls:
    """All side calls; owns their processes. `units` returns all units by name; `reloads` has the reloads by unit."""

    def __init__(
        self, loop: Loop, launcher: Launcher, kin: Kin, units: Callable[[], Mapping[str, Unit]]
    ) -> None:
        self._units = units
        self._loop = loop
        self._launcher = launcher
        self._kin = kin
        self.reloads: dict[Unit, ServiceReload] = {}
        self._turns: deque[Unit] = deque()  # units whose reload waits for others to end
        self._running: set[Unit] = set()  # units whose reload has begun and takes a process
        self._asked: dict[Unit, list[Done]] = {}  # callers that wait for the result of a `status`
        self._quiet: Callable[[], None] | None = None

    def reload(self, name: str, done: Reloaded) -> None:
        """Have the service reload; calls `done` with '' or with the problem. Joins a reload that is under way."""
        unit = self._units()[name]
        if unit in self.reloads:
            self.reloads[unit].asked.append(done)
            return
        ended = partial(self._reloaded, unit)
        reload = self.reloads[unit] = ServiceReload(self._loop, self._launcher, self._kin, unit, ended)
        reload.asked.append(done)
        if reload.has_process:
            self._turns.append(unit)
            self._loop.call_soon(self._begin)
        else:
            reload.begin()

    def _begin(self) -> None:
        """Begin the next reload if there is room: one per round of the loop, as each takes a fork."""
        if self._turns and len(self._running) < AT_ONCE and self._quiet is None:
            unit = self._turns.popleft()
            self._running.add(unit)
            self._loop.call_soon(self._begin)
            self.reloads[unit].begin()

    def _reloaded(self, unit: Unit) -> None:
        del self.reloads[unit]
        if unit in self._running:
            self._running.remove(unit)
            self._loop.call_soon(self._begin)
        self._tell_quiet()

    def ask_status(self, name: str, done: Done) -> None:
        """Call the function `status`; callers that ask meanwhile share its result."""
        unit = self._units()[name]
        if unit in self._asked:
            self._asked[unit].append(done)
            return
        self._asked[unit] = [done]
        SideCall(self._loop, self._launcher, self._kin, unit, Role.STATUS, partial(self._said, unit)).begin()

    def _said(self, unit: Unit, answer: Answer) -> None:
        for done in self._asked.pop(unit):
            done(answer)
        self._tell_quiet()

    def when_quiet(self, quiet: Callable[[], None]) -> None:
        """Call back once no function runs whose end only this spawnd could handle."""
        self._quiet = quiet
        self._tell_quiet()

    def _tell_quiet(self) -> None:
        if self._quiet is None or self._asked or any(reload.calls for reload in self.reloads.values()):
            return
        quiet, self._quiet = self._quiet, None
        self._loop.call_soon(quiet)
        self._loop.call_soon(self._begin)  # in case the exec does not take place

    @property
    def is_forking(self) -> bool:
        """Whether fork servers are about to make processes, for these calls or others, which only this spawnd knows."""
        return self._launcher.is_forking

    def reloading(self) -> list[str]:
        """Return the names of services with a reload under way."""
        return [unit.name for unit in self.reloads]
