"""Stopping several services in order, dependants first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from supervisor.lifecycle.life import AT_REST, Cause
from supervisor.loop.loop import Loop
from supervisor.manager.unit import Unit

Order = tuple[Unit, Cause, str]  # the unit, why it stops, and the service that the cause is about, if any


class Stops:
    """The services that have been ordered to stop and have not stopped yet.

    A service is stopped once all its dependants that are to stop as well have stopped; dependants that are
    not to stop delay nothing. `later` returns the dependants by name. `stop` gets the unit, the cause, and
    the service that the cause is about, if any.
    """

    def __init__(
        self, loop: Loop, later: Callable[[], Mapping[str, set[str]]], stop: Callable[[Unit, Cause, str], None]
    ) -> None:
        self._loop = loop
        self._later = later
        self._stop = stop
        self._ordered: dict[str, Order] = {}
        self._told: set[str] = set()  # names of ordered services that have been told to stop
        self._planned = False

    def add(self, units: Iterable[Unit], cause: Cause = Cause.STOP, other: str = "") -> None:
        """Order these units to stop; units that need not wait stop at once."""
        self.add_all((unit, cause, other) for unit in units)

    def add_all(self, orders: Iterable[Order]) -> None:
        """Order stops, each with its own cause; all in one call, so that the first waits for the others."""
        new = {order[0].name: order for order in orders if order[0].life.state not in AT_REST}
        if new:
            self._ordered |= new
            self._told -= new.keys()
            self._advance()

    def cancel(self, unit: Unit) -> None:
        """Cancel the order to stop a unit, which is wanted again."""
        self._ordered.pop(unit.name, None)
        self._told.discard(unit.name)

    def is_ordered(self, unit: Unit) -> bool:
        """Whether the unit is to stop and has not stopped yet."""
        return unit.name in self._ordered

    def orders(self) -> list[tuple[str, Cause, str]]:
        """Return the pending orders: name, cause and the service that the cause is about."""
        return [(name, *order[1:]) for name, order in self._ordered.items() if order[0].life.state not in AT_REST]

    def look_soon(self) -> None:
        """Look again in the next round of the loop, once for all changes until then."""
        if self._ordered and not self._planned:
            self._planned = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._planned = False
        self._ordered = {name: order for name, order in self._ordered.items() if order[0].life.state not in AT_REST}
        self._told &= self._ordered.keys()
        later = self._later()
        ready = {
            name: order
            for name, order in self._ordered.items()
            if name not in self._told and not later.get(name, set()) & self._ordered.keys()
        }
        self._told |= ready.keys()
        for unit, cause, other in ready.values():
            self._stop(unit, cause, other)
