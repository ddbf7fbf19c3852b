"""Asking a service to reload itself: its check first, then its function `reload`, then its reload_signal."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.lifecycle.life import State
from supervisor.loop.loop import Loop
from supervisor.manager.aside import Aside
from supervisor.manager.launcher import Launcher
from supervisor.manager.unit import Unit
from supervisor.process.answer import Answer
from supervisor.process.run import Role, Run

Done = Callable[[str], None]
UP = (State.RUNNING, State.RELOADING)


class ServiceReload:
    """One reload.  Calls each of `asked` once, with '' or with what is wrong.  Never restarts anything."""

    def __init__(self, loop: Loop, launcher: Launcher, unit: Unit, ended: Callable[[], object]) -> None:
        self.asked: list[Done] = []
        self.calls = False  # whether its function runs now
        self._loop = loop
        self._launcher = launcher
        self._unit = unit
        self._main: Run | None = None
        self._ended = ended
        self._aside: Aside | None = None

    @property
    def has_process(self) -> bool:
        """Whether it takes a process, and not just a signal."""
        service = self._unit.service
        return bool(service.check) or "reload" in service.functions

    def begin(self) -> None:
        unit = self._unit
        self._main = unit.run
        if unit.service.reload_signal is None and "reload" not in unit.service.functions:
            self._end("it has no reload_signal" if unit.service.has_process else "it has no function reload")
        elif not self._is_up():
            self._end("it is not running")
        elif unit.life.state is State.STARTING:  # it may not have its handler yet, and the signal would end it
            self._end("it is still starting")
        elif unit.service.check:
            self._run(Role.CHECK, self._checked)
        else:
            self._call()

    def cancel(self) -> None:
        """The service is at rest: end what runs for this."""
        if self._aside is not None:
            self._aside.cancel()

    def _is_up(self) -> bool:
        unit = self._unit
        if unit.service.has_process:
            return unit.run is not None and unit.run.role is Role.MAIN
        return unit.life.state in UP

    def _run(self, role: Role, done: Callable[[Answer], None]) -> None:
        self._aside = Aside(self._loop, self._launcher, self._unit, role, done)
        self._aside.begin()

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
        """Whether another process has its place by now, or it is about to go."""
        return self._unit.run is not self._main or self._unit.life.state not in UP

    def _signal(self) -> None:
        run, signum = self._unit.run, self._unit.service.reload_signal
        if run is None or signum is None or self._has_changed():
            self._end("it is not running any more")
            return
        run.kill(signum)
        self._end("")

    def _end(self, problem: str) -> None:
        self._aside = None
        self._ended()
        for done in self.asked:
            done(problem)
