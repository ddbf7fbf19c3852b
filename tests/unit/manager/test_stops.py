"""Stopping several services in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from supervisor.lifecycle.life import Life, State
from supervisor.loop.loop import Loop
from supervisor.manager.stops import Stops
from supervisor.manager.unit import Unit


@dataclass
class Fake:
    name: str
    life: Life


class World:
    """Units by name, each running; `later` gives those that come after each."""

    def __init__(self, later: dict[str, set[str]]) -> None:
        self.loop = Loop(on_error=self._fail)
        self.units = {name: Fake(name, Life(state=State.RUNNING)) for name in later}
        self.told: list[str] = []
        self.later = later
        self.stops = Stops(self.loop, lambda: later, lambda unit, *_why: self.told.append(unit.name))

    @staticmethod
    def _fail(error: BaseException) -> None:
        raise error

    def order(self, *names: str) -> None:
        self.stops.add([cast(Unit, self.units[name]) for name in names])

    def gone(self, name: str) -> None:
        """It has stopped; the loop runs until everybody has looked."""
        self.units[name].life = Life(state=State.STOPPED)
        self.told.clear()
        self.stops.look_soon()
        self.loop.call_soon(self.loop.stop)
        self.loop.run()


def test_what_comes_after_others_goes_first() -> None:
    world = World({"db": {"app"}, "app": {"web"}, "web": set()})
    world.order("db", "app", "web")
    assert world.told == ["web"]
    world.gone("web")
    assert world.told == ["app"]
    world.gone("app")
    assert world.told == ["db"]
    world.loop.close()


def test_what_is_not_to_stop_holds_nothing_up() -> None:
    world = World({"db": {"app"}, "app": set()})
    world.order("db")
    assert world.told == ["db"]
    world.loop.close()


def test_what_is_wanted_again_is_left_alone_and_holds_nothing_up() -> None:
    world = World({"db": {"app"}, "app": {"web"}, "web": set()})
    world.order("db", "app", "web")
    world.stops.cancel(cast(Unit, world.units["app"]))
    world.gone("web")
    assert world.told == ["db"]
    world.loop.close()


def test_one_that_is_stopping_is_told_again_by_an_order_alone() -> None:
    world = World({"db": set(), "app": set()})
    world.order("db", "app")
    world.gone("app")
    assert world.told == []
    world.order("db")
    assert world.told == ["db"]
    world.loop.close()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_every_one_stops_and_none_before_what_comes_after_it(edges: list[tuple[int, int]]) -> None:
    later: dict[str, set[str]] = {str(number): set() for number in range(10)}
    for one, other in edges:
        if one < other:  # no cycles
            later[str(one)].add(str(other))
    world = World(later)
    world.order(*later)
    stopped: set[str] = set()
    told = list(world.told)
    while told:
        name = told.pop()
        assert name not in stopped, "told once"
        assert later[name] <= stopped
        stopped.add(name)
        world.gone(name)
        told += world.told
    assert stopped == later.keys()
    world.loop.close()
