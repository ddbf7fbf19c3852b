"""The listed descriptors of a unit are those that its process gets; lines of the log about units are bounded."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.life import Cause, Life, State
from supervisor.log.output import JournalOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.launcher import Launcher
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.unit import LINES_AT_ONCE, NAMES, QUIET, Lines, Stops, Unit, summary
from supervisor.notify.service_side import Sender
from supervisor.process.children import Children
from supervisor.systemd.reports import SystemdStore
from tests.unit.closing import PatientCloser
from tests.unit.program import PROGRAM

NULL = Descriptor("file", name="null", path="/dev/null", access="r")


def test_a_workers_descriptors(loop: Loop, tmp_path: Path) -> None:
    """Its options are between its table and what it has stored."""
    systemd_store = SystemdStore(loop, Sender(""), {})
    closer = PatientCloser()
    runtime, outputs = RuntimeFolder(str(tmp_path)), JournalOutputs(closer.close)
    host = HostFacts(False, 1024, runtime, outputs, None, systemd_store, closer, PROGRAM)
    launcher = Launcher(loop, Children(lambda pid, exit: None), host, Sources(), lambda unit: None)
    unit = Unit(Service("w", worker="w", fd=(NULL,), fdstore_max=1, lines={"stderr": 3}), loop, PatientCloser())
    assert unit.store.add("kept", [os.open("/dev/null", os.O_RDONLY)], False, 1) == 0
    with ExitStack() as theirs:
        given = [name for name, _ in launcher._descriptors(unit, theirs)]
    rows = unit.descriptors()
    assert [row.number for row in rows] == list(range(len(rows)))
    assert [row.name for row in rows[3:]] == given == ["null", "options", "kept"]
    assert [row.what for row in rows[:3]] == ["file /dev/null r", "log of spawnd", "file /dev/null w"]
    assert [row.stored for row in rows[3:]] == [False, False, True]
    unit.store.clear()


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ("", "0 of 0 services running"),
        ("running running", "2 of 2 services running"),
        ("running reloading", "2 of 2 services running"),
        ("running starting waiting", "1 of 3 services running, 1 starting, 1 waiting"),
        ("running stopping done done stopped", "1 of 5 services running, 1 stopping, 2 done, 1 stopped"),
        ("failed running", "1 of 2 services running; failed: s0"),
        ("backoff failed failed done", "0 of 4 services running, 1 done; failed: s1, s2; backoff: s0"),
    ],
)
def test_who_runs_and_who_does_not(states: str, text: str) -> None:
    assert summary((f"s{number}", State(state)) for number, state in enumerate(states.split())) == text


def test_every_state_is_told() -> None:
    for state in State:
        assert state.value in summary([("x", state)]) or state is State.RELOADING


def test_not_all_names_of_a_long_list() -> None:
    text = summary((f"s{number}", State.FAILED) for number in range(NAMES + 3))
    assert text == f"0 of {NAMES + 3} services running; failed: s0, s1, s2, s3, s4 and 3 more"


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


def test_a_stop_that_has_failed_is_pending_until_its_unit_is_told_again() -> None:
    """An observer of the first one's stop must not take the second for done."""
    world = World({"a": set(), "b": set()})
    for unit in world.units.values():
        unit.life = Life(state=State.FAILED, cause=Cause.KEPT)
    pending = []
    stops = Stops(
        world.loop, lambda: world.later, lambda *_order: pending.append(stops.is_pending(cast(Unit, world.units["b"])))
    )
    stops.add([cast(Unit, unit) for unit in world.units.values()])
    assert pending == [True, False]
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


def test_the_same_failure_is_told_once_in_a_while() -> None:
    lines = Lines()
    told = [now for now in range(300) if lines.take("no memory", now)]
    assert told == [0, 60, 120, 180, 240]
    assert lines.take("no process", 301)


def test_failures_that_take_turns_are_told_as_seldom_in_the_end() -> None:
    lines = Lines()
    told = [now for now in range(600) if lines.take(f"failure {now % 2}", now)]
    assert told[:LINES_AT_ONCE] == [*range(LINES_AT_ONCE)]
    assert len(told) <= LINES_AT_ONCE + 600 / QUIET + 1
