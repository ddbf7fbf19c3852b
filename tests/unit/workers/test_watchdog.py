from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.loop.loop import Loop
from tests.unit.loop.clock import Clock
from tests.unit.waiting import turn
from workers.runtime.status import PAUSE, StatusLine, Veto, feed_watchdog


class World:
    """A loop whose time goes on when it is told to, and what was said."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.errors: list[BaseException] = []
        self.loop = Loop(on_error=self.errors.append, clock=self.clock)
        self.said: list[str] = []

    def later(self, seconds: float) -> list[str]:
        """Return the messages after so much time."""
        self.said.clear()
        self.clock.now += seconds
        turn(self.loop, 2)
        return self.said


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    world = World()
    yield world
    world.loop.close()
    assert not world.errors


def test_it_is_fed_twice_in_each_interval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    feed_watchdog(world.loop, world.said.append)
    assert world.said == ["WATCHDOG=1"]
    assert "WATCHDOG_USEC" not in os.environ  # no child of ours is to feed it
    assert world.later(4.9) == []
    assert world.later(0.2) == ["WATCHDOG=1"]
    assert world.later(5.1) == ["WATCHDOG=1"]


@pytest.mark.parametrize(("interval", "ours"), [("", True), ("0", True), ("x", True), ("1000", False)])
def test_nobody_wants_to_hear_it(world: World, monkeypatch: pytest.MonkeyPatch, interval: str, ours: bool) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", interval)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if ours else "1")
    feed_watchdog(world.loop, world.said.append)
    assert world.said == []
    assert world.later(100) == []


def test_a_status_is_said_once_in_a_while_and_where_it_has_changed(world: World) -> None:
    text = "1 name"
    line = StatusLine(world.loop, world.said.append, lambda: text)
    assert world.said == ["STATUS=1 name"]
    line.changed()
    assert world.later(PAUSE) == []  # it has not
    text = "2 names"
    for _ in range(5):
        line.changed()
    assert world.later(PAUSE / 2) == []
    text = "3 names"
    assert world.later(PAUSE / 2) == ["STATUS=3 names"]
    assert world.later(100) == []


def test_each_change_asks_for_the_veto(world: World) -> None:
    is_busy = False
    line = StatusLine(world.loop, world.said.append, lambda: "text", lambda: is_busy)
    line.changed()
    assert world.said == ["STATUS=text"]
    assert world.later(PAUSE) == []
    is_busy = True
    line.changed()
    assert world.said[-1] == "X_SPAWND_BUSY=1"
    is_busy = False
    line.changed()
    assert world.later(PAUSE) == ["X_SPAWND_BUSY=0"]


def test_a_veto_is_told_at_once_and_its_end_a_moment_later(world: World) -> None:
    veto = Veto(world.loop, world.said.append)
    veto.hold(False)
    assert world.later(PAUSE) == []
    veto.hold(True)
    assert world.said == ["X_SPAWND_BUSY=1"]
    veto.hold(True)
    veto.hold(False)
    assert world.later(PAUSE / 2) == []
    veto.hold(True)  # work that comes and goes
    veto.hold(False)
    assert world.later(PAUSE / 2) == ["X_SPAWND_BUSY=0"]
    veto.hold(True)
    veto.hold(False)
    veto.hold(True)
    assert world.said == ["X_SPAWND_BUSY=0", "X_SPAWND_BUSY=1"]
    assert world.later(100) == []


def test_a_veto_that_could_not_be_sent_is_sent_later(world: World) -> None:
    is_full = True

    def say(line: str) -> bool:
        if not is_full:
            world.said.append(line)
        return not is_full

    veto = Veto(world.loop, say)
    veto.hold(True)
    assert world.later(PAUSE) == []
    is_full = False
    assert world.later(PAUSE) == ["X_SPAWND_BUSY=1"]
    is_full = True
    veto.hold(False)
    assert world.later(PAUSE) == []
    is_full = False
    assert world.later(PAUSE) == ["X_SPAWND_BUSY=0"]
