"""What runs beside services that are up: reloads, and calls of their function `status`; of each one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from supervisor.loop.loop import Loop
from supervisor.manager.aside import Aside, Done
from supervisor.manager.launcher import Launcher
from supervisor.manager.service_reload import ServiceReload
from supervisor.manager.unit import Unit
from supervisor.process.answer import Answer
from supervisor.process.run import Role

AT_ONCE = 8  # reloads that have a process at a time: hundreds would keep everybody waiting


class Asides:
    """Owns the processes, through what it has begun."""

    def __init__(self, loop: Loop, launcher: Launcher) -> None:
        self._loop = loop
        self._launcher = launcher
        self._reloads: dict[Unit, ServiceReload] = {}
        self._turns: deque[Unit] = deque()  # whose reload has to wait for others to end
        self._running: set[Unit] = set()  # whose reload has begun, and has a process
        self._asked: dict[Unit, list[Done]] = {}  # who waits for what its function `status` says
        self._quiet: Callable[[], None] | None = None

    def cancel(self, unit: Unit) -> None:
        """The service is at rest: end its reload."""
        if unit in self._reloads:
            self._reloads[unit].cancel()

    def reload(self, unit: Unit, done: Callable[[str], None]) -> None:
        """Ask the service to reload; calls `done` with '' or with what is wrong.  One at a time: others join it."""
        if unit in self._reloads:
            self._reloads[unit].asked.append(done)
            return
        reload = self._reloads[unit] = ServiceReload(self._loop, self._launcher, unit, partial(self._reloaded, unit))
        reload.asked.append(done)
        if reload.has_process:
            self._turns.append(unit)
            self._loop.call_soon(self._begin)
        else:
            reload.begin()

    def _begin(self) -> None:
        """Begin the next one where there may be another: one in a round of the loop, as each takes a fork."""
        if self._turns and len(self._running) < AT_ONCE and self._quiet is None:
            unit = self._turns.popleft()
            self._running.add(unit)
            self._loop.call_soon(self._begin)
            self._reloads[unit].begin()

    def _reloaded(self, unit: Unit) -> None:
        del self._reloads[unit]
        if unit in self._running:
            self._running.remove(unit)
            self._loop.call_soon(self._begin)
        self._tell_quiet()

    def ask_status(self, unit: Unit, done: Done) -> None:
        """Call its function `status`; one at a time: others hear the same."""
        if unit in self._asked:
            self._asked[unit].append(done)
            return
        self._asked[unit] = [done]
        Aside(self._loop, self._launcher, unit, Role.STATUS, partial(self._said, unit)).begin()

    def _said(self, unit: Unit, answer: Answer) -> None:
        for done in self._asked.pop(unit):
            done(answer)
        self._tell_quiet()

    def when_quiet(self, quiet: Callable[[], None]) -> None:
        """Call back once no function runs whose end only this spawnd would hear of."""
        self._quiet = quiet
        self._tell_quiet()

    def _tell_quiet(self) -> None:
        if self._quiet is None or self._asked or any(reload.calls for reload in self._reloads.values()):
            return
        quiet, self._quiet = self._quiet, None
        self._loop.call_soon(quiet)
        self._loop.call_soon(self._begin)  # where that was in vain

    def reloading(self) -> list[str]:
        """The names of those that are just being asked to reload."""
        return [unit.name for unit in self._reloads]
