"""The orderly shutdown: services stop, dependants first, and no process of theirs is left."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.lifecycle.life import AT_REST, Cause
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit
from supervisor.process.children import Children
from supervisor.process.leftovers import kill_descendants

ORPHANS_TIMEOUT = 2.0  # seconds for killed orphans to be gone


class Shutdown:
    """Shutdown of all units of `manager`, from now on; calls `done` once when no process is left."""

    def __init__(self, loop: Loop, manager: Manager, children: Children, done: Callable[[], None]) -> None:
        self._loop = loop
        self._manager = manager
        self._children = children
        self._done = done
        self._ended = False
        # a unit that ran at the last look: until it has stopped, no other needs a look
        self._awaited: Unit | None = None
        manager.shutting_down = True
        self._unobserve = manager.observe(self._look)
        manager.stop([unit.name for unit in manager.units.values() if not unit.internal], Cause.SHUTDOWN)
        self._look()

    def hurry(self) -> None:
        """Kill everything that still runs, when the shutdown is requested again."""
        self._manager.kill_all()

    def _look(self, _unit: Unit | None = None) -> None:
        """Stop the built-in services after the others; end when no service runs."""
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
        """Kill processes that escaped their service: spawnd, their subreaper, has inherited them."""
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
