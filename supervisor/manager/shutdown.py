"""The orderly end: everything stops, what comes after others first, and nothing of ours is left."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.lifecycle.life import AT_REST, Cause
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit
from supervisor.process.children import Children
from supervisor.process.leftovers import kill_descendants

ORPHANS_TIMEOUT = 2.0  # seconds for orphans that were killed to be gone


class Shutdown:
    """Stops all units of `manager` from now on and calls `done` once, when none has a process any more."""

    def __init__(self, loop: Loop, manager: Manager, children: Children, done: Callable[[], None]) -> None:
        self._loop = loop
        self._manager = manager
        self._children = children
        self._done = done
        self._ended = False
        self._awaited: Unit | None = None  # one that ran at the last look, so that not each end takes a look at all
        manager.shutting_down = True
        self._unobserve = manager.observe(self._look)
        manager.stop([unit.name for unit in manager.units.values() if not unit.internal], Cause.SHUTDOWN)
        self._look()

    def hurry(self) -> None:
        """Somebody asks once more: KILL to everything that still runs."""
        self._manager.kill_all()

    def _look(self, _unit: Unit | None = None) -> None:
        """Built-in services stop last; the end comes when no process is left."""
        if self._awaited is not None and self._awaited.life.state not in AT_REST:
            return
        running = [unit for unit in self._manager.units.values() if unit.life.state not in AT_REST]
        self._awaited = next((unit for unit in reversed(running) if not unit.internal), None)
        if self._awaited is not None:
            return
        if not running:
            self._end()
        else:
            self._manager.stop([unit.name for unit in running], Cause.SHUTDOWN)

    def _end(self) -> None:
        """Nothing of ours is left: what escaped its service came to spawnd, its subreaper."""
        if self._ended:
            return
        self._ended = True
        self._unobserve()
        self._await_orphans(self._loop.clock() + ORPHANS_TIMEOUT)

    def _await_orphans(self, deadline: float) -> None:
        kill_descendants()
        self._children.reap()
        if not self._children.any_left() or self._loop.clock() >= deadline:
            log.info("all services have stopped")
            self._done()
        else:
            self._loop.call_later(0.01, lambda: self._await_orphans(deadline))
