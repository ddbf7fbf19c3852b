"""How looks from time to time tell that nobody uses a service."""

from __future__ import annotations

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Act, Cause, Idleness, Life, State, Then, look_period, looked_at
from supervisor.lifecycle.wording import idleness

FIVE = 300.0
SERVICE = Service("s", exec="/bin/s", demand=True, idle_stop=FIVE)


@pytest.mark.parametrize(
    ("idle_stop", "period"), [(FIVE, 30.0), (10.0, 1.0), (5.0, 1.0), (1.0, 1.0), (0.25, 0.25), (86400.0, 8640.0)]
)
def test_the_period_of_looks(idle_stop: float, period: float) -> None:
    assert look_period(idle_stop) == period


def test_it_is_over_once_all_looks_for_so_long_have_found_nothing() -> None:
    idle = Idleness(due=30.0, cpu_s=1.0)
    for now in range(30, 330, 30):
        idle = looked_at(SERVICE, idle, now, "", 1.0)
        assert (idle.since, idle.busy, idle.due) == (30, "", now + 30)
        assert not idle.is_over(SERVICE, now)
    assert looked_at(SERVICE, idle, 330, "", 1.0).is_over(SERVICE, 330)


def test_any_use_begins_anew() -> None:
    idle = looked_at(SERVICE, Idleness(since=30.0, looked=300.0, cpu_s=1.0), 330, "3 connections", 1.0)
    assert (idle.since, idle.busy) == (None, "3 connections")
    assert not idle.is_over(SERVICE, 330)
    assert looked_at(SERVICE, idle, 360, "", 1.0).since == 360


@pytest.mark.parametrize(
    ("used", "busy"), [(0.05, ""), (0.059, ""), (0.07, "0.23 % CPU"), (4.0, "13 % CPU"), (36.0, "120 % CPU")]
)
def test_a_heartbeat_is_no_work(used: float, busy: str) -> None:
    assert looked_at(SERVICE, Idleness(looked=0.0, cpu_s=1.0), 30.0, "", 1.0 + used).busy == busy


def test_an_unknown_time_of_the_processor_neither_ends_nor_begins_it() -> None:
    """After a loss of spawnd, the next look is the first one."""
    first = looked_at(SERVICE, Idleness(since=30.0), 400, "", 7.0)
    assert (first.since, first.is_over(SERVICE, 400)) == (30, False)
    assert looked_at(SERVICE, first, 430, "", 7.0).is_over(SERVICE, 430)
    assert looked_at(SERVICE, Idleness(), 400, "", 7.0).since is None
    hidden = looked_at(SERVICE, Idleness(since=30.0, looked=300.0, cpu_s=1.0), 330, "", None)
    assert not hidden.is_over(SERVICE, 330)


def test_less_time_than_before_is_none() -> None:
    """A child was not waited for."""
    assert looked_at(SERVICE, Idleness(cpu_s=9.0), 30.0, "", 1.0).busy == ""


def test_an_idle_service_is_told_to_end_and_sleeps() -> None:
    life = Life(State.RUNNING, up_since=1.0, restarts=2)
    stopping, acts = machine.idle(SERVICE, life, 400.0)
    assert (stopping.state, stopping.then, stopping.cause) == (State.STOPPING, Then.SLEEP, Cause.IDLE)
    assert (stopping.reason, acts) == ("idle for 300 s", (Act.HANDOVER_SIGNAL,))
    waiting, acts = machine.exited(SERVICE, stopping, 401.0, False, "exited with status 3", 0.0, 3)
    assert (waiting.state, waiting.then, waiting.failures) == (State.WAITING, Then.SLEEP, 0)
    asleep, acts = machine.dependencies_met(SERVICE, waiting, 401.0)
    assert (asleep.state, acts) == (State.ASLEEP, (Act.SLEEP,))


@pytest.mark.parametrize("state", [State.STOPPING, State.RELOADING, State.ASLEEP, State.WAITING])
def test_only_one_that_runs_is_idle(state: State) -> None:
    life = Life(state)
    assert machine.idle(SERVICE, life, 400.0) == (life, ())
    assert machine.idle(Service("s", exec="/bin/s"), Life(State.RUNNING), 400.0) == (Life(State.RUNNING), ())


@pytest.mark.parametrize(
    ("idle", "words"),
    [
        (None, ""),
        (Idleness(due=30.0), ""),
        (Idleness(busy="1 connection"), "busy: 1 connection"),
        (Idleness(since=100.0), "idle for 60 s, asleep in 240 s at the earliest"),
        (Idleness(since=-900.0), "idle for 1060 s, asleep in 0 s at the earliest"),
    ],
)
def test_words(idle: Idleness | None, words: str) -> None:
    assert idleness(SERVICE, idle, 160.0) == words
