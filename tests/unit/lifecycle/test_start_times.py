"""When a service was asked for, began and came up: what a start order needed, whatever came after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State
from tests.unit.lifecycle.machine_case import NOW, Case

Times = tuple[float | None, float | None, float | None]


def times(case: Case) -> Times:
    return case.life.asked, case.life.began, case.life.came_up


def notifying() -> Case:
    """Return a service that waits a second for others, and needs two until it is ready."""
    case = Case(ready="notify", healthy_after=1.0)
    case(machine.start)
    case.now += 1
    case(machine.dependencies_met)
    case(machine.executed)
    case.now += 2
    case(machine.ready)
    assert case.life.state is State.RUNNING
    return case


BOOT = (NOW, NOW + 1, NOW + 3)


def again(case: Case) -> None:
    """Start as what it waits for lets it, an hour later."""
    case.now += 3600
    case(machine.dependencies_met)
    case(machine.executed)
    case(machine.ready)
    assert case.life.state is State.RUNNING


def restarted(case: Case) -> None:
    case(machine.restart)
    case.exited(clean=True)
    again(case)


def crashed(case: Case) -> None:
    case.now += 60
    case.exited()
    again(case)


def crashed_at_once(case: Case) -> None:
    case.exited()
    assert case.life.state is State.BACKOFF
    case.now += 3600
    case(machine.timed_out)
    again(case)


def started_in_backoff(case: Case) -> None:
    case.exited()
    assert case.life.state is State.BACKOFF
    case(machine.start)
    again(case)


@pytest.mark.parametrize("event", [restarted, crashed, crashed_at_once, started_in_backoff])
def test_a_restart_changes_nothing(event: Callable[[Case], None]) -> None:
    case = notifying()
    event(case)
    assert times(case) == BOOT


def test_failures_before_the_first_success_are_part_of_it() -> None:
    case = Case(ready="notify").failed_once()
    case.now += 5
    case(machine.timed_out)
    case(machine.dependencies_met)
    case(machine.executed)
    case.now += 2
    case(machine.ready)
    assert times(case) == (NOW, NOW, NOW + 7)


def test_a_start_from_rest_is_a_new_one() -> None:
    case = notifying()
    case(machine.stop)
    case.exited(clean=True)
    case.now += 100
    case(machine.start)
    assert times(case) == (NOW + 103, None, None)
    again(case)
    assert times(case) == (NOW + 103, NOW + 3703, NOW + 3703)


def test_so_is_one_that_is_asked_for_while_it_stops() -> None:
    case = notifying()
    case(machine.stop)
    case(machine.start)
    assert times(case) == (NOW + 3, None, None)
    case(machine.start)
    assert times(case) == (NOW + 3, None, None)
