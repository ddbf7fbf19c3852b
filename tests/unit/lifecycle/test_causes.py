"""The state machine: causes of a state, and what it makes of a loss of spawnd."""

from __future__ import annotations

import pytest

from supervisor.lifecycle import machine
from supervisor.lifecycle.life import (
    Act,
    Cause,
    State,
    Step,
)
from tests.unit.lifecycle.machine_case import CASES, NOW, Case


def test_an_order_is_told_with_its_cause_until_something_else_happens() -> None:
    case = Case().running()
    assert case.life.cause is Cause.START
    case(machine.stop, Cause.CONFLICT, "b")
    assert (case.life.cause, case.life.other) == (Cause.CONFLICT, "b")
    assert case.life.reason == "conflicts with b, which was started"
    case(machine.stop)  # it goes down already, and not for this
    assert (case.life.cause, case.life.other) == (Cause.CONFLICT, "b")
    case.exited(clean=True)
    assert (case.life.state, case.life.cause, case.life.other) == (State.STOPPED, Cause.CONFLICT, "b")
    case(machine.start)
    assert (case.life.cause, case.life.other) == (Cause.START, "")


@pytest.mark.parametrize("cause", [Cause.RESTART, Cause.DEFINITION, Cause.SIGNAL, Cause.NAMESPACE])
def test_the_cause_of_a_restart_is_known_while_it_runs_again(cause: Cause) -> None:
    case = Case().running()
    case(machine.restart, cause)
    case(machine.start)  # it comes up already, and not for this
    case.exited(clean=True)
    case(machine.dependencies_met)
    case(machine.executed)
    assert (case.life.state, case.life.cause) == (State.RUNNING, cause)


def test_a_start_of_one_that_stops_is_the_cause_of_its_coming_back() -> None:
    case = Case().stopping()
    case(machine.start)
    assert (case.life.cause, case.life.reason) == (Cause.START, "start requested")


def test_causes_of_failures() -> None:
    late_check = Case(check=("/bin/c",), start_timeout=5.0)
    late_check(machine.start)
    late_check(machine.dependencies_met)
    failed_check = Case(check=("/bin/c",))
    failed_check(machine.start)
    failed_check(machine.dependencies_met)
    failed_check.exited()
    not_ready = Case(ready="notify", start_timeout=5.0).launched()
    watchdog = Case(watchdog=5.0).running()
    for case in (late_check, not_ready, watchdog):
        case.now += 6
        case(machine.timed_out)
        case.exited(reason="killed by TERM")
    assert late_check.life.cause is Cause.CHECK_LATE
    assert failed_check.life.cause is Cause.CHECK
    assert not_ready.life.cause is Cause.NOT_READY
    assert watchdog.life.cause is Cause.WATCHDOG
    assert Case().failed_once().life.cause is Cause.EXIT
    forgotten = CASES[State.FAILED]()
    forgotten(machine.reset)
    assert forgotten.life.cause is Cause.RESET


def recovered(case: Case, alive: bool = True) -> tuple[State, tuple[Act, ...]]:
    return case(machine.recovered, alive)


def test_a_check_that_nobody_heard_of_is_made_again() -> None:
    case = Case(check=("/bin/check",))
    case(machine.start)
    case(machine.dependencies_met)
    assert recovered(case, alive=False) == (State.WAITING, ())
    assert case.life.deadline is None
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CHECK,))


def test_one_that_lives_has_executed() -> None:
    assert recovered(Case().launched()) == (State.RUNNING, ())
    case = Case(watchdog=5.0).launched()
    case.now += 3
    assert recovered(case) == (State.RUNNING, ())
    assert (case.life.up_since, case.life.watchdog_at) == (case.now, case.now + 5)


@pytest.mark.parametrize("ready", ["notify", "fd"])
@pytest.mark.parametrize("executes", [False, True])
def test_what_may_have_said_that_it_is_ready_into_nothing_is_not_killed_for_its_silence(
    ready: str, executes: bool
) -> None:
    case = Case(ready=ready, start_timeout=30.0).launched()
    if executes:
        case(machine.executed)
    case.now += 10
    assert recovered(case) == (State.STARTING, ())
    assert case.life.deadline == NOW + 30
    case.now = NOW + 30
    assert case(machine.timed_out) == (State.RUNNING, ())
    assert "not heard" in case.life.reason
    assert case.life.up_since == NOW + 30


def test_what_says_that_it_is_ready_after_all_is() -> None:
    case = Case(ready="notify").launched()
    recovered(case)
    assert case(machine.ready) == (State.RUNNING, ())
    assert case.life.reason == "running"


def test_the_next_start_of_what_was_not_heard_is_like_any_other() -> None:
    case = Case(ready="notify", start_timeout=30.0, healthy_after=0.0).launched()
    recovered(case)
    assert case.exited() == (State.BACKOFF, ())
    assert case.life.reason == "exited with status 1"
    case.now += 1000
    case(machine.timed_out)
    case(machine.dependencies_met)
    case(machine.executed)
    case.now += 30
    assert case(machine.timed_out) == (State.STOPPING, (Act.STOP_SIGNAL,))


@pytest.mark.parametrize("reloads", [False, True])
def test_a_watchdog_begins_anew(reloads: bool) -> None:
    case = Case(ready="notify", watchdog=5.0).running()
    if reloads:
        case(machine.reloading)
    before = case.life
    case.now += 60
    assert recovered(case)[1] == ()
    assert case.life == before._replace(watchdog_at=case.now + 5)


@pytest.mark.parametrize("alive", [False, True])
def test_the_rest_stays_as_it_is(alive: bool) -> None:
    stopping, failed, waiting, stopped = Case().stopping(), Case().failed_once(), Case(), Case()
    waiting(machine.start)
    for case in (stopping, failed, waiting, stopped):
        before = case.life
        case.now += 60
        recovered(case, alive)
        assert case.life == before


def test_one_that_has_ended_stays_until_that_is_told() -> None:
    for case in (Case().running(), Case().launched(), Case(ready="notify").launched()):
        before = case.life
        assert recovered(case, alive=False) == (before.state, ())
        unheard = before.state is State.STARTING  # nobody knows whether its program has run
        assert case.life == (before._replace(step=Step.UNHEARD) if unheard else before)


@pytest.mark.parametrize("state", State)
def test_a_stop_of_the_supervisor_moves_time_limits_and_no_wait_between_failures(state: State) -> None:
    case = CASES[state]()
    before = case.life
    case(machine.granted, 7.0)
    expected = before.deadline
    if expected is not None and state is not State.BACKOFF:
        expected += 7.0
    assert case.life == before._replace(deadline=expected)


def test_a_stop_of_the_supervisor_moves_the_watchdog() -> None:
    case = Case(watchdog=5.0).running()
    case(machine.granted, 7.0)
    assert case.life.watchdog_at == NOW + 12.0
