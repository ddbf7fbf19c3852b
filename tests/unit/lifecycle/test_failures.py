"""The state machine: failures, back-off, and statuses after which nothing is started again."""

from __future__ import annotations

import pytest

from supervisor.definitions.service import Backoff
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import (
    AT_REST,
    Act,
    State,
)
from tests.unit.lifecycle.machine_case import CASES, Case


def test_ten_failures_in_a_row_and_it_gives_up() -> None:
    case = Case().launched()
    waits = []
    for _ in range(9):
        assert case.exited()[0] is State.BACKOFF
        assert case.life.deadline is not None
        waits.append(round(case.life.deadline - case.now, 6))
        case.now = case.life.deadline
        assert case(machine.timed_out) == (State.WAITING, ())
        case(machine.dependencies_met)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    assert case.exited() == (State.FAILED, (Act.RELEASE,))
    assert (case.life.failures, case.life.restarts, case.life.starts) == (10, 9, 10)
    assert case.life.reason.endswith("; 10 failures in a row")


def test_one_failure_is_none_in_a_row() -> None:
    case = Case(start_limit=1).launched()
    case.exited()
    assert case.life.reason.endswith("; 1 failure")


def test_without_a_limit_it_never_gives_up() -> None:
    case = Case(start_limit=None).launched()
    for _ in range(2000):
        assert case.exited()[0] is State.BACKOFF
        case.now = case.life.deadline or 0
        case(machine.timed_out)
        case(machine.dependencies_met)
    assert case.life.failures == 2000


def test_a_healthy_one_is_started_again_at_once_and_its_failures_are_forgotten() -> None:
    case = Case().failed_once()
    case.now = case.life.deadline or 0
    case(machine.timed_out)
    case(machine.dependencies_met)
    case(machine.executed)
    case.now += 1.0
    assert case.exited() == (State.WAITING, ())
    assert (case.life.failures, case.life.restarts) == (0, 2)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.LAUNCH,))


def test_one_that_dies_a_moment_too_soon_waits() -> None:
    case = Case().running()
    case.now += 0.999
    assert case.exited() == (State.BACKOFF, ())
    assert case.life.failures == 1


def test_the_time_of_a_start_is_no_time_of_health() -> None:
    case = Case(ready="notify").launched()
    case(machine.executed)
    case.now += 60
    assert case.exited()[0] is State.BACKOFF
    assert case.life.reason == "exited with status 1 before it was ready"


def test_a_reload_is_part_of_the_time_of_health() -> None:
    case = Case(healthy_after=10.0).running()
    case.now += 9
    case(machine.reloading)
    case.now += 1
    case(machine.ready)
    assert case.exited() == (State.WAITING, ())


@pytest.mark.parametrize(
    ("restart", "task", "clean", "healthy", "expected"),
    [
        ("always", False, True, True, State.WAITING),
        ("always", False, True, False, State.BACKOFF),
        ("always", False, False, True, State.WAITING),
        ("always", False, False, False, State.BACKOFF),
        ("on-failure", False, True, True, State.STOPPED),
        ("on-failure", False, True, False, State.STOPPED),
        ("on-failure", False, False, True, State.WAITING),
        ("on-failure", False, False, False, State.BACKOFF),
        ("never", False, True, True, State.STOPPED),
        ("never", False, True, False, State.STOPPED),
        ("never", False, False, True, State.FAILED),
        ("never", False, False, False, State.FAILED),
        ("always", True, True, True, State.DONE),
        ("always", True, True, False, State.DONE),
        ("always", True, False, True, State.WAITING),
        ("always", True, False, False, State.BACKOFF),
        ("on-failure", True, True, False, State.DONE),
        ("on-failure", True, False, False, State.BACKOFF),
        ("never", True, True, False, State.DONE),
        ("never", True, False, False, State.FAILED),
    ],
)
def test_what_follows_an_end(restart: str, task: bool, clean: bool, healthy: bool, expected: State) -> None:
    case = Case(restart=restart, task=task).running()
    case.now += 5 if healthy else 0.5
    assert case.exited(clean=clean) == (expected, (Act.RELEASE,) if expected in AT_REST else ())


@pytest.mark.parametrize("ready", ["notify", "fd"])
def test_a_task_may_end_well_without_a_word(ready: str) -> None:
    case = Case(task=True, ready=ready).launched()
    case(machine.executed)
    assert case.exited(clean=True) == (State.DONE, (Act.RELEASE,))


def test_a_daemon_that_ends_well_before_it_was_ready_has_failed() -> None:
    case = Case(ready="notify", restart="on-failure").launched()
    case(machine.executed)
    assert case.exited(clean=True)[0] is State.BACKOFF


def test_one_that_is_never_restarted_fails_with_its_first_start() -> None:
    case = Case(restart="never").launched()
    assert case(machine.start_failed, "no fork", 0.0) == (State.FAILED, (Act.RELEASE,))


def test_reset_forgets_failures() -> None:
    case = CASES[State.FAILED]()
    assert case(machine.reset) == (State.STOPPED, ())
    assert case.life.failures == 0


def test_reset_shortens_a_wait_between_failures_and_never_makes_it_longer() -> None:
    case = Case(backoff=Backoff(first=1, factor=10, max=1000, jitter=0)).failed_once()
    for _ in range(2):
        case.now = case.life.deadline or 0
        case(machine.timed_out)
        case(machine.dependencies_met)
        case.exited()
    assert case.life.deadline == case.now + 100
    assert case(machine.reset) == (State.BACKOFF, ())
    assert (case.life.deadline, case.life.failures) == (case.now + 1, 0)
    case.now += 0.5
    case(machine.reset)
    assert case.life.deadline == case.now + 0.5


@pytest.mark.parametrize("state", sorted(set(State) - {State.FAILED, State.BACKOFF}))
def test_reset_leaves_the_state_of_all_others(state: State) -> None:
    case = CASES[state]()
    before = case.life._replace(failures=0, restarts=0)
    assert case(machine.reset) == (state, ())
    assert case.life == before


@pytest.mark.parametrize("restart", ["always", "on-failure", "never"])
@pytest.mark.parametrize(("clean", "state"), [(False, State.FAILED), (True, State.STOPPED)])
def test_a_status_after_which_nothing_is_started_again(restart: str, clean: bool, state: State) -> None:
    case = Case(restart=restart, no_restart_status=(3,)).running()
    assert case.exited(clean, "exited with status 3", 3) == (state, (Act.RELEASE,))
    assert case.life.reason == "exited with status 3; no_restart_status lists it"
    case(machine.start)
    case(machine.dependencies_met)
    assert not case.life.final


def test_it_counts_before_it_is_ready_as_well() -> None:
    case = Case(no_restart_status=(3,), ready="notify").launched()
    case(machine.executed)
    assert case.exited(False, "exited with status 3", 3)[0] is State.FAILED


def test_other_statuses_are_as_ever() -> None:
    case = Case(no_restart_status=(3,)).running()
    assert case.exited(False, "exited with status 4", 4)[0] is State.BACKOFF


def test_a_task_that_has_ended_well_is_done_whatever_its_status() -> None:
    case = Case(no_restart_status=(0,), task=True, restart="never").running()
    assert case.exited(True, "exited with status 0", 0)[0] is State.DONE
