"""Stopping several services: what comes after others goes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from supervisor.lifecycle.life import AT_REST, Cause
from supervisor.loop.loop import Loop
from supervisor.manager.unit import Unit

Order = tuple[Unit, Cause, str]  # what is to stop, why, and the service that it is about, if any


class Stops:
    """The services that are to stop and have not yet.

    One is stopped once none is left of those that come after it and are to stop as well;
    what is not to stop holds nothing up.  `later` gives for each name those that come after,
    `stop` is given the cause and the service that it is about, if any.
    """

    def __init__(
        self, loop: Loop, later: Callable[[], Mapping[str, set[str]]], stop: Callable[[Unit, Cause, str], None]
    ) -> None:
        self._loop = loop
        self._later = later
        self._stop = stop
        self._ordered: dict[str, Order] = {}
        self._told: set[str] = set()  # names of those among them that have been told to stop
        self._planned = False

    def add(self, units: Iterable[Unit], cause: Cause = Cause.STOP, other: str = "") -> None:
        """Have these stop; those that can, at once."""
        self.add_all((unit, cause, other) for unit in units)

    def add_all(self, orders: Iterable[Order]) -> None:
        """As `add`, each for a cause of its own; all at once, or the first would not wait for the others."""
        new = {order[0].name: order for order in orders if order[0].life.state not in AT_REST}
        if new:
            self._ordered |= new
            self._told -= new.keys()
            self._advance()

    def cancel(self, unit: Unit) -> None:
        """Somebody wants it up again."""
        self._ordered.pop(unit.name, None)
        self._told.discard(unit.name)

    def is_ordered(self, unit: Unit) -> bool:
        """Whether the unit is to stop and has not yet."""
        return unit.name in self._ordered

    def orders(self) -> list[tuple[str, Cause, str]]:
        """Services that are still to stop: name, cause and the service concerned."""
        return [(name, *order[1:]) for name, order in self._ordered.items() if order[0].life.state not in AT_REST]

    def look_soon(self) -> None:
        """Something has changed: look again, once for however many changes come together."""
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
