"""One process beside a running service: its check before a reload, its functions `reload` and `status`.

What came of it is told to whoever asked, and changes nothing in the life of the service.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from supervisor.errors import StepError
from supervisor.loop.loop import Loop, Timer
from supervisor.manager import functions
from supervisor.manager.launcher import Launcher
from supervisor.manager.unit import Unit
from supervisor.process.answer import Answer, take_answer
from supervisor.process.children import Exit
from supervisor.process.failure import failure_of
from supervisor.process.leftovers import has_orphans
from supervisor.process.run import Role, Run

Done = Callable[[Answer], None]  # where it is not ok, its text says why


class Aside:
    """Calls `done` once, which may be at once.  Owns the process."""

    def __init__(self, loop: Loop, launcher: Launcher, unit: Unit, role: Role, done: Done) -> None:
        self._loop = loop
        self._launcher = launcher
        self._unit = unit
        self._role = role
        self._done = done
        self._run: Run | None = None
        self._answer: Answer | None = None
        self._timer: Timer | None = None
        self._is_late = False

    def begin(self) -> None:
        """Start it, for as long as a start may take."""
        unit = self._unit
        try:
            is_check = self._role is Role.CHECK
            run = self._launcher.check(unit, self) if is_check else self._launcher.call(unit, self._role, self)
        except (StepError, OSError) as error:
            self._done(Answer(False, str(failure_of(error))))
            return
        self._run = run
        self._loop.watch(run.error_fd, select.EPOLLIN, lambda _events: self._read_errors(run))
        run.release()
        timeout = unit.service.start_timeout
        if timeout is not None:
            self._timer = self._loop.call_later(timeout, self._too_late)

    def cancel(self) -> None:
        """Nobody needs it any more."""
        if self._run is not None:
            self._run.kill_group()

    def _too_late(self) -> None:
        self._is_late = True
        self.cancel()

    def _read_errors(self, run: Run) -> None:
        if run.read_errors():
            self._loop.unwatch(run.error_fd)

    # as a child

    def died(self, pid: int) -> None:
        run = self._run
        if run is None:
            return
        run.read_errors()
        if self._role.is_function:
            self._answer = take_answer(self._launcher.answer_path(self._unit, self._role))
        if self._role is not Role.RELOAD or not functions.is_clean(self._answer, pid, is_child=True):
            run.kill_group()
        elif self._unit.cgroup is None and has_orphans(self._launcher.known_children() | {pid}):
            self._unit.sessions.add(pid)  # what it has started belongs to the service, and ends with it

    def reaped(self, pid: int, exit: Exit) -> None:
        run, self._run = self._run, None
        if run is None:
            raise RuntimeError(f"{self._unit.name}: process {pid} is not its own")
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(run.error_fd)
        run.close_error_fd()
        failure = run.setup_error()
        if failure is not None:
            self._done(Answer(False, str(failure)))
        elif self._answer is not None and self._answer.ok:
            self._done(self._answer)
        else:
            self._done(Answer(self._answer is None and exit == Exit(), self._describe(exit)))

    def _describe(self, exit: Exit) -> str:
        if self._is_late:
            return f"{self._role.value} not finished in time"
        if self._role.is_function:
            return functions.describe(self._role, self._answer, exit) if exit != Exit() or self._answer else ""
        return exit.describe()
