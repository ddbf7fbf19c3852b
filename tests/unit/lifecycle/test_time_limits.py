"""The state machine: limits of time, and the watchdog."""

from __future__ import annotations

import pytest

from supervisor.lifecycle import machine
from supervisor.lifecycle.life import (
    Act,
    State,
)
from tests.unit.lifecycle.machine_case import CASES, NOW, Case


def test_a_start_that_takes_too_long_is_stopped_and_has_failed() -> None:
    case = Case(ready="notify").launched()
    case(machine.executed)
    case.now += 90
    assert case(machine.timed_out) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.exited(reason="killed by TERM")[0] is State.BACKOFF
    assert case.life.reason == "not ready after 90 s; killed by TERM"
    assert case.life.failures == 1


def test_what_hands_over_keeps_it_for_its_successor_when_it_is_late() -> None:
    case = Case(ready="notify", handover_signal=10).launched()
    case(machine.executed)
    case.now += 90
    assert case(machine.timed_out) == (State.STOPPING, (Act.HANDOVER_SIGNAL,))
    assert case(machine.stop) == (State.STOPPING, (Act.STOP_SIGNAL,)), "there is to be no successor"


def test_a_check_that_takes_too_long_is_stopped_and_has_failed() -> None:
    case = Case(check=("/bin/sleep", "1d"))
    case(machine.start)
    case(machine.dependencies_met)
    case.now += 90
    assert case(machine.timed_out) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.exited(reason="killed by TERM")[0] is State.BACKOFF
    assert case.life.reason == "check not finished after 90 s; killed by TERM"


def test_more_time_is_never_less() -> None:
    case = Case(ready="notify", start_timeout=10.0).launched()
    case(machine.extended, 60.0)
    assert case.life.deadline == NOW + 60
    case(machine.extended, 5.0)
    assert case.life.deadline == NOW + 60


def test_more_time_is_not_for_what_is_killed_already_nor_for_a_wait() -> None:
    case = Case().stopping()
    case.now += 10
    case(machine.timed_out)
    case(machine.extended, 60.0)
    assert case.life.due() is None
    case = CASES[State.BACKOFF]()
    deadline = case.life.deadline
    case(machine.extended, 60.0)
    assert case.life.deadline == deadline


def test_a_reload_ends_with_ready_or_with_its_time() -> None:
    case = Case(start_timeout=20.0).running()
    case.now += 5
    assert case(machine.reloading) == (State.RELOADING, ())
    assert case.life.deadline == NOW + 25
    assert case(machine.ready) == (State.RUNNING, ())
    assert case.life.up_since == NOW
    assert case.life.due() is None
    case(machine.reloading)
    case.now += 20
    assert case(machine.timed_out) == (State.RUNNING, ())
    assert case.life.reason == "reload not finished after 20 s"
    assert case.life.up_since == NOW


def test_a_watchdog_that_is_fed_never_bites() -> None:
    case = Case(watchdog=10.0).running()
    assert case.life.due() == NOW + 10
    case.now += 9
    case(machine.alive)
    assert case.life.due() == NOW + 19
    case.now += 9
    case(machine.reloading)
    assert case.life.due() == NOW + 19


@pytest.mark.parametrize("reloads", [False, True])
def test_a_watchdog_that_is_missed_aborts_then_kills(reloads: bool) -> None:
    case = Case(watchdog=0.5).running()
    if reloads:
        case(machine.reloading)
    case.now += 0.5
    assert case(machine.timed_out) == (State.STOPPING, (Act.ABORT,))
    assert case.life.due() == case.now + 10
    case.now += 10
    assert case(machine.timed_out) == (State.STOPPING, (Act.KILL,))
    # the time that its end took is no time of health
    assert case.exited(reason="killed by KILL")[0] is State.BACKOFF
    assert case.life.reason == "watchdog missed; killed by KILL"
    assert case.life.failures == 1


def test_one_that_was_healthy_and_missed_its_watchdog_is_started_again_at_once() -> None:
    case = Case(watchdog=10.0, start_limit=10)
    case.life = case.life._replace(failures=9)
    case(machine.start)
    case.life = case.life._replace(failures=9)
    case(machine.dependencies_met)
    case(machine.executed)
    case.now += 10
    case(machine.timed_out)
    assert case.exited(reason="killed by ABRT") == (State.WAITING, ())
    assert case.life.failures == 0
    assert case.life.reason == "watchdog missed; killed by ABRT"


def test_one_that_is_never_restarted_fails_when_it_misses_its_watchdog() -> None:
    case = Case(watchdog=10.0, restart="never").running()
    case.now += 10
    case(machine.timed_out)
    assert case.exited() == (State.FAILED, (Act.RELEASE,))


def test_a_service_can_trigger_its_watchdog_itself() -> None:
    assert Case().running()(machine.watchdog_missed) == (State.STOPPING, (Act.ABORT,))


def test_a_watchdog_means_nothing_before_it_is_up_and_once_it_stops() -> None:
    case = Case(watchdog=10.0, ready="notify").launched()
    for event in (machine.alive, machine.watchdog_missed):
        assert case(event) == (State.STARTING, ())
    assert case.life.watchdog_at is None
    case = Case(watchdog=10.0).stopping()
    assert case.life.watchdog_at is None
    assert case(machine.watchdog_missed) == (State.STOPPING, ())


def test_a_stop_while_a_missed_watchdog_ends_it_stays_a_stop() -> None:
    case = Case(watchdog=10.0).running()
    case.now += 10
    case(machine.timed_out)
    assert case(machine.stop) == (State.STOPPING, ())
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


def test_a_start_while_a_failed_one_ends_is_a_new_start() -> None:
    case = Case(ready="notify", start_limit=1).launched()
    case.now += 90
    case(machine.timed_out)
    case(machine.start)
    assert case.exited() == (State.WAITING, ())
    assert case.life.failures == 0
