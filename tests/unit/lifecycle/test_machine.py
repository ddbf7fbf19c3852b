"""The state machine, event by event: starts, stops and what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import pytest

from supervisor.lifecycle import machine
from supervisor.lifecycle.life import (
    Act,
    Cause,
    Life,
    State,
    Step,
    Then,
    Transition,
    comes_up,
    goes_down,
    is_wanted,
)
from supervisor.lifecycle.machine import ImpossibleEvent
from tests.unit.lifecycle.machine_case import CASES, NOW, Case

POSSIBLE: dict[Callable[..., Transition], Set[State]] = {
    machine.dependencies_met: {State.WAITING},
    machine.executed: {State.STARTING, State.STOPPING},
    machine.start_failed: {State.STARTING, State.ASLEEP},
    machine.exited: {State.STARTING, State.RUNNING, State.RELOADING, State.STOPPING},
    machine.timed_out: {State.STARTING, State.RELOADING, State.STOPPING, State.BACKOFF},
    **dict.fromkeys(
        (
            machine.start,
            machine.stop,
            machine.restart,
            machine.sleep,
            machine.unserved,
            machine.reset,
            machine.ready,
            machine.reloading,
            machine.alive,
            machine.extended,
            machine.watchdog_missed,
        ),
        frozenset(State),
    ),
}
ARGUMENTS: dict[Callable[..., Transition], tuple[Any, ...]] = {
    machine.extended: (5.0,),
    machine.start_failed: ("cannot open", 0.0),
    machine.unserved: ("still waits", 0.0),
    machine.exited: (False, "exited with status 1", 0.0),
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", POSSIBLE, ids=lambda event: event.__name__)
def test_an_event_that_cannot_happen_is_never_swallowed(event: Callable[..., Transition], state: State) -> None:
    case = CASES[state]()
    assert case.life.state is state
    if state in POSSIBLE[event]:
        case(event, *ARGUMENTS.get(event, ()))
    else:
        with pytest.raises(ImpossibleEvent, match=f"event '{event.__name__}' in state '{state}'"):
            case(event, *ARGUMENTS.get(event, ()))


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.DONE, State.BACKOFF])
def test_a_start_of_what_is_down_waits_for_dependencies_and_forgets_failures(state: State) -> None:
    case = CASES[state]()
    case.life = case.life._replace(failures=1, restarts=3)
    assert case(machine.start) == (State.WAITING, ())
    assert (case.life.failures, case.life.restarts, case.life.deadline) == (0, 0, None)
    assert case.life.reason == "start requested"


@pytest.mark.parametrize("state", [State.WAITING, State.STARTING, State.RUNNING, State.RELOADING])
def test_a_start_of_what_is_up_changes_nothing(state: State) -> None:
    case = CASES[state]()
    before = case.life
    case.now += 5
    case(machine.start)
    assert (case.life, case.acts) == (before, ())


def test_a_start_with_ready_exec_runs_as_soon_as_exec_worked() -> None:
    case = Case().launched()
    assert (case.life.step, case.life.starts, case.life.deadline) == (Step.EXEC, 1, NOW + 90)
    case.now += 1
    assert case(machine.executed) == (State.RUNNING, ())
    assert (case.life.up_since, case.life.deadline, case.life.reason) == (NOW + 1, None, "running")


@pytest.mark.parametrize("ready", ["notify", "fd"])
def test_a_start_with_readiness_runs_when_it_says_so(ready: str) -> None:
    case = Case(ready=ready, start_timeout=30.0).launched()
    assert case(machine.executed) == (State.STARTING, ())
    assert (case.life.step, case.life.deadline) == (Step.READY, NOW + 30)
    case.now += 3
    assert case(machine.ready) == (State.RUNNING, ())
    assert case.life.up_since == NOW + 3


def test_readiness_that_is_heard_before_exec_counts() -> None:
    """Two pipes, no order between them."""
    case = Case(ready="notify").launched()
    assert case(machine.ready) == (State.RUNNING, ())
    assert case(machine.executed) == (State.RUNNING, ())


def test_readiness_that_nobody_waits_for_means_nothing() -> None:
    case = Case().launched()
    assert case(machine.ready) == (State.STARTING, ())
    case = Case(check=("/bin/true",), ready="notify")
    case(machine.start)
    case(machine.dependencies_met)
    assert case(machine.ready) == (State.STARTING, ())


def test_a_check_runs_first_and_shares_the_time() -> None:
    case = Case(check=("/bin/true",), start_timeout=10.0)
    case(machine.start)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CHECK,))
    assert (case.life.step, case.life.starts) == (Step.CHECK, 0)
    case.now += 4
    assert case.exited(clean=True) == (State.STARTING, (Act.LAUNCH,))
    assert (case.life.step, case.life.starts, case.life.deadline) == (Step.EXEC, 1, NOW + 10)


def test_a_check_that_fails_is_a_failure_of_the_start() -> None:
    case = Case(check=("/bin/false",))
    case(machine.start)
    case(machine.dependencies_met)
    assert case.exited()[0] is State.BACKOFF
    assert case.life.reason == "check failed: exited with status 1"


def test_what_cannot_be_opened_is_a_failure_of_the_start() -> None:
    case = Case().launched()
    assert case(machine.start_failed, "cannot bind tcp 0.0.0.0:80: Address already in use", 0.0)[0] is State.BACKOFF
    assert case.life.failures == 1
    assert "Address already in use" in case.life.reason


@pytest.mark.parametrize("state", [State.WAITING, State.BACKOFF])
def test_a_stop_of_what_has_no_process_is_done_at_once(state: State) -> None:
    case = CASES[state]()
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.RELOADING])
def test_a_stop_sends_the_signal_then_kills(state: State) -> None:
    case = CASES[state]()
    assert case(machine.stop) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert (case.life.then, case.life.deadline) == (Then.REST, case.now + 10)
    case.now += 10
    assert case(machine.timed_out) == (State.STOPPING, (Act.KILL,))
    assert (case.life.killed, case.life.due()) == (True, None)
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))
    assert case.life.reason == "stop requested"


def test_a_second_stop_changes_nothing() -> None:
    case = Case().stopping()
    deadline = case.life.deadline
    case.now += 3
    assert case(machine.stop) == (State.STOPPING, ())
    assert case.life.deadline == deadline


def test_a_stop_with_no_time_limit_waits() -> None:
    case = Case(stop_timeout=None).stopping()
    assert case.life.due() is None


def test_a_start_during_a_stop_follows_it() -> None:
    case = Case().stopping()
    assert case(machine.start) == (State.STOPPING, ())
    assert case.exited() == (State.WAITING, ())


def test_the_last_word_counts() -> None:
    case = Case().stopping()
    for event, then in ((machine.start, Then.START), (machine.stop, Then.REST), (machine.restart, Then.START)):
        case(event)
        assert case.life.then is then
    case(machine.stop)
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


@pytest.mark.parametrize("state", list(State))
def test_what_is_wanted_and_what_comes_up(state: State) -> None:
    life = CASES[state]().life
    resting = state in (State.STOPPED, State.DONE, State.STOPPING)
    assert is_wanted(life) is not resting
    up = state in (State.WAITING, State.STARTING, State.RUNNING, State.RELOADING)
    assert comes_up(life) is up
    assert goes_down(life) is (state is State.STOPPING)


def test_what_is_stopped_to_be_started_again_comes_up() -> None:
    case = Case().running()
    case(machine.restart)
    assert is_wanted(case.life)
    assert comes_up(case.life)
    assert not goes_down(case.life)


def test_what_is_stopped_because_it_failed_is_wanted_but_does_not_come_up_yet() -> None:
    case = Case(watchdog=1.0).running()
    case(machine.watchdog_missed)
    assert is_wanted(case.life)
    assert not comes_up(case.life)
    assert not goes_down(case.life)


def test_a_life_is_plain_data_that_can_be_read_back() -> None:
    life = Case(watchdog=10.0).running().life
    assert Life(**life._asdict()) == life
    assert all(isinstance(value, (str, float, int, type(None))) for value in life._asdict().values())


def test_a_module_is_torn_down_before_it_stays_down() -> None:
    case = Case(no_restart_status=(3,), functions=("stop",)).running()
    assert case.exited(False, "exited with status 3", 3) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited(True, "stop succeeded")[0] is State.FAILED
    assert case.life.reason.startswith("exited with status 3")


def test_a_task_has_come_up_when_it_is_done() -> None:
    """Its dependents start then, and not when its program runs."""
    case = Case(task=True).running()
    came_up = [case.life.came_up]
    case.now += 5
    case.exited(clean=True, reason="exited with status 0")
    came_up.append(case.life.came_up)
    assert (case.life.state, came_up) == (State.DONE, [None, NOW + 5])


def test_a_daemon_has_come_up_when_it_is_ready_and_that_stays() -> None:
    case = Case(ready="notify").launched()
    case.now += 2
    case(machine.ready)
    assert case.life.came_up == NOW + 2
    case.now += 2
    case(machine.reloading)
    case(machine.ready)
    assert case.life.came_up == NOW + 2


def test_a_ready_fd_that_is_closed_without_a_word_is_a_failure_of_the_start() -> None:
    case = Case(ready="fd", ready_fd=3).launched()
    case(machine.executed)
    assert case(machine.ready_closed) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.exited()[0] is State.BACKOFF
    assert case.life.cause is Cause.NOT_READY
    assert case.life.reason.startswith("closed its ready_fd without saying that it is ready")


def test_a_ready_fd_that_is_closed_afterwards_means_nothing() -> None:
    case = Case(ready="fd", ready_fd=3).running()
    assert case(machine.ready_closed) == (State.RUNNING, ())


def test_a_daemon_that_is_found_after_the_order_to_stop_is_told() -> None:
    case = Case(forking=True)
    case(machine.start)
    case(machine.dependencies_met)
    assert case(machine.executed) == (State.STARTING, ())
    case(machine.stop)
    assert case(machine.in_background) == (State.STOPPING, (Act.STOP_SIGNAL,))
