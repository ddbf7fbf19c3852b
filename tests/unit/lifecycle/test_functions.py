"""The functions of a module in the state machine: `start`, `stop`, `restart`, with a process and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from supervisor.definitions.service import Backoff, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import (
    Act,
    Cause,
    Life,
    State,
    Step,
    Then,
    Transition,
    is_down,
    runs,
    spares_older,
    spares_others,
)  # fmt: skip

NOW = 1000.0
ALL = ("start", "stop", "restart")


class Case:
    """A service and its life; each call is an event and returns the new state with what is to be done."""

    def __init__(self, *functions: str, exec: str = "", **keys: Any) -> None:
        keys.setdefault("backoff", Backoff(jitter=0))
        self.service = Service("a", exec=exec, functions=functions, **keys)
        self.life = Life()
        self.now = NOW

    def __call__(self, event: Callable[..., Transition], *args: Any) -> tuple[State, tuple[Act, ...]]:
        self.life, acts = event(self.service, self.life, self.now, *args)
        return self.life.state, acts

    def exited(self, clean: bool = True, reason: str = "gone") -> tuple[State, tuple[Act, ...]]:
        return self(machine.exited, clean, reason, 0.0)

    def up(self) -> Case:
        self(machine.start)
        state, acts = self(machine.dependencies_met)
        if acts == (Act.CALL_START,):
            state, acts = self.exited()
        if acts == (Act.LAUNCH,):
            state, _ = self(machine.executed)
        assert state is State.RUNNING
        return self


# without a process


def test_a_group_is_up_as_soon_as_it_may_be() -> None:
    case = Case()
    case(machine.start)
    assert case(machine.dependencies_met) == (State.RUNNING, ())
    assert (case.life.began, case.life.came_up, case.life.starts) == (NOW, NOW, 1)
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))


def test_it_is_up_from_the_success_of_start_to_its_stop() -> None:
    case = Case("start", "stop")
    case(machine.start)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))
    assert case.life.step is Step.SETUP
    case.now += 2
    assert case.exited() == (State.RUNNING, ())
    assert (case.life.began, case.life.came_up) == (NOW, NOW + 2)
    assert case.life.set_up
    assert not runs(case.service, case.life)
    assert case(machine.stop) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.life.deadline == case.now + 90  # start_timeout is for all functions
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))
    assert not case.life.set_up


def test_without_a_stop_it_is_down_at_once() -> None:
    assert Case("start").up()(machine.stop) == (State.STOPPED, (Act.RELEASE,))


def test_a_start_that_fails_is_tried_again_and_stop_is_not_called() -> None:
    case = Case("start", "stop")
    case(machine.start)
    case(machine.dependencies_met)
    assert case.exited(False, "start failed: boom") == (State.BACKOFF, ())
    assert (case.life.cause, case.life.reason, case.life.failures) == (Cause.FUNCTION, "start failed: boom", 1)
    assert not case.life.set_up
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))


def test_a_start_that_takes_too_long_is_ended() -> None:
    case = Case("start", "stop", start_timeout=5.0)
    case(machine.start)
    case(machine.dependencies_met)
    case.now += 5
    assert case(machine.timed_out) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert (case.life.cause, case.life.reason) == (Cause.FUNCTION_LATE, "start not finished after 5 s")
    assert case.exited(False) == (State.BACKOFF, ())


def test_a_stop_while_start_runs_ends_that() -> None:
    case = Case("start", "stop")
    case(machine.start)
    case(machine.dependencies_met)
    assert case(machine.stop) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.exited(False, "killed by TERM") == (State.STOPPED, (Act.RELEASE,))


def test_a_start_that_succeeds_while_it_is_stopped_is_followed_by_stop() -> None:
    case = Case("start", "stop")
    case(machine.start)
    case(machine.dependencies_met)
    case(machine.stop)
    assert spares_others(case.service, case.life, clean=True)
    assert not spares_others(case.service, case.life)
    assert case.exited() == (State.STOPPING, (Act.CALL_STOP,))
    assert not spares_others(case.service, case.life, clean=True)
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


def test_what_such_a_start_has_started_ends_where_nothing_else_would_end_it() -> None:
    case = Case("start", "restart")
    case(machine.start)
    case(machine.dependencies_met)
    case(machine.stop)
    assert not spares_others(case.service, case.life, clean=True)
    case(machine.start)
    assert not spares_others(case.service, case.life._replace(cause=Cause.DEFINITION), clean=True)
    assert spares_others(case.service, case.life, clean=True), "its restart comes"


def test_a_start_that_succeeds_too_late_is_followed_by_stop() -> None:
    case = Case("start", "stop", start_timeout=5.0)
    case(machine.start)
    case(machine.dependencies_met)
    case.now += 5
    case(machine.timed_out)
    assert case.exited() == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.BACKOFF, ())
    assert case.life.reason.startswith("start not finished after 5 s")


def test_a_stop_that_fails_is_told() -> None:
    case = Case("start", "stop").up()
    case(machine.stop)
    assert case.exited(False, "stop failed: busy") == (State.FAILED, (Act.RELEASE,))
    assert case.life.reason == "stop requested; stop failed: busy"
    assert case.life.failures == 0


def test_a_task_is_done_after_its_start() -> None:
    case = Case("start", task=True, restart="never")
    case(machine.start)
    case(machine.dependencies_met)
    assert case.exited() == (State.DONE, (Act.RELEASE,))
    assert case.life.came_up == NOW


def test_a_check_comes_first() -> None:
    case = Case("start", check=("/bin/true",))
    case(machine.start)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CHECK,))
    assert case.exited() == (State.STARTING, (Act.CALL_START,))


# restarts


def test_a_restart_is_stop_and_start() -> None:
    case = Case("start", "stop").up()
    assert case(machine.restart) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


def test_what_start_has_left_ends_before_the_next_one_where_there_is_no_stop() -> None:
    case = Case("start").up()
    assert case(machine.restart) == (State.STOPPING, (Act.END_LEFT,))
    assert not spares_others(case.service, case.life)
    assert case.exited(False) == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))
    assert Case().up()(machine.restart) == (State.WAITING, ())


def test_the_function_restart_takes_their_place() -> None:
    case = Case(*ALL).up()
    assert case(machine.restart) == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_RESTART,))
    starts = case.life.starts
    assert case.exited() == (State.RUNNING, ())
    assert case.life.starts == starts + 1


def test_a_restart_that_fails_is_cleaned_up_by_stop() -> None:
    case = Case(*ALL).up()
    case(machine.restart)
    case(machine.dependencies_met)
    assert case.exited(False, "restart failed") == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.BACKOFF, ())
    case(machine.timed_out)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


def test_a_stop_before_restart_has_begun_calls_stop() -> None:
    case = Case(*ALL).up()
    case(machine.restart)
    assert case(machine.stop) == (State.STOPPING, (Act.CALL_STOP,))


def test_another_definition_knows_nothing_of_what_was_set_up() -> None:
    case = Case(*ALL).up()
    assert case(machine.restart, Cause.DEFINITION) == (State.STOPPING, (Act.CALL_STOP,))
    case.exited()
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


# with a process


def test_start_comes_before_the_process_and_stop_after_it() -> None:
    case = Case("start", "stop", exec="/bin/a")
    case(machine.start)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))
    assert case.exited() == (State.STARTING, (Act.LAUNCH,))
    case(machine.executed)
    assert case(machine.stop) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.exited() == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


def test_after_a_crash_stop_and_start_are_called_again() -> None:
    case = Case("start", "stop", exec="/bin/a").up()
    case.now += 60
    assert case.exited(False, "killed by SEGV") == (State.STOPPING, (Act.CALL_STOP,))
    assert case.life.then is Then.FAIL
    case.now += 3
    assert case.exited() == (State.WAITING, ())  # it had been healthy
    assert (case.life.reason, case.life.cause, case.life.restarts) == ("killed by SEGV", Cause.EXIT, 1)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


def test_the_time_of_stop_makes_nobody_healthy() -> None:
    case = Case("start", "stop", exec="/bin/a").up()
    case.exited(False)
    case.now += 60
    assert case.exited() == (State.BACKOFF, ())


def test_a_process_that_cannot_be_started_is_cleaned_up() -> None:
    case = Case("start", "stop", exec="/bin/a")
    case(machine.start)
    case(machine.dependencies_met)
    case.exited()
    assert case(machine.start_failed, "cannot open", 0.0) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited(False, "stop failed") == (State.BACKOFF, ())
    assert (case.life.reason, case.life.stop_failure) == ("cannot open; stop failed", "stop failed")
    case(machine.start)
    assert case.life.stop_failure == ""


def test_a_stop_that_fails_at_a_restart_is_remembered() -> None:
    case = Case("start", "stop").up()
    assert case(machine.restart) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited(False, "stop failed: busy") == (State.WAITING, ())
    assert case.life.stop_failure == "stop failed: busy"


def test_a_task_that_ends_well_is_done_after_its_stop() -> None:
    case = Case("start", "stop", exec="/bin/a", task=True, restart="never").up()
    assert case.exited() == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.DONE, (Act.RELEASE,))


def test_a_start_ordered_while_stop_runs_comes_after_it() -> None:
    case = Case("start", "stop", exec="/bin/a").up()
    case(machine.stop)
    case.exited()
    assert case(machine.start) == (State.STOPPING, ())
    assert case.exited() == (State.WAITING, ())


def not_called(case: Case) -> tuple[State, tuple[Act, ...]]:
    """Have the call of a function fail, which has not begun."""
    return case(machine.start_failed, "cannot fork", 0.0)


def test_a_call_of_stop_that_cannot_be_made_is_a_failure_and_is_made_by_the_next_stop() -> None:
    case = Case("start", "stop").up()
    for _ in range(2):
        assert case(machine.stop) == (State.STOPPING, (Act.CALL_STOP,))
        assert not_called(case) == (State.FAILED, (Act.RELEASE,))
        assert (case.life.cause, case.life.reason) == (Cause.FUNCTION, "stop requested; cannot fork")
        assert not is_down(case.life)
    assert case(machine.stop) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))
    assert is_down(case.life)


def test_a_reset_does_not_forget_that_stop_is_due() -> None:
    case = Case("start", "stop").up()
    case(machine.stop)
    not_called(case)
    assert case(machine.reset) == (State.STOPPED, ())
    assert case(machine.stop) == (State.STOPPING, (Act.CALL_STOP,))


def test_a_stop_that_was_called_and_has_failed_is_not_called_again() -> None:
    case = Case("start", "stop").up()
    case(machine.stop)
    case.exited(False, "stop failed: busy")
    assert is_down(case.life)


@pytest.mark.parametrize("order", [machine.start, machine.restart])
def test_no_start_comes_before_a_stop_that_could_not_be_called(order: Callable[..., Transition]) -> None:
    case = Case("start", "stop").up()
    case(machine.stop)
    not_called(case)
    assert case(order) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


def test_after_a_crash_a_stop_that_could_not_be_called_is_called_before_the_next_start() -> None:
    case = Case("start", "stop", exec="/bin/a").up()
    case.exited(False, "killed by SEGV")
    for failures in (1, 2):
        assert not_called(case) == (State.BACKOFF, ())
        assert (case.life.cause, case.life.reason) == (Cause.EXIT, "killed by SEGV; cannot fork")
        assert (case.life.failures, case.life.stop_failure) == (failures, "cannot fork")
        assert case(machine.timed_out) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


def test_a_restart_goes_on_once_stop_could_be_called() -> None:
    case = Case("start", "stop").up()
    case(machine.restart)
    assert not_called(case) == (State.BACKOFF, ())
    assert case.life.reason == "restart requested; cannot fork"
    assert case(machine.timed_out) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.WAITING, ())


def test_a_task_is_done_once_its_stop_could_be_called() -> None:
    case = Case("start", "stop", exec="/bin/a", task=True, restart="on-failure").up()
    case.exited()
    assert not_called(case) == (State.BACKOFF, ())
    assert case(machine.timed_out) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.DONE, (Act.RELEASE,))


def test_a_service_that_has_ended_for_good_is_not_started_by_the_call_of_its_stop() -> None:
    case = Case("start", "stop", exec="/bin/a", no_restart_status=(78,)).up()
    case(machine.exited, False, "exit 78", 0.0, 78)
    assert not_called(case) == (State.BACKOFF, ())
    case(machine.timed_out)
    assert case.exited() == (State.FAILED, (Act.RELEASE,))
    assert is_down(case.life)


def test_a_definition_without_stop_ends_the_wait_for_it() -> None:
    case = Case("start", "stop", exec="/bin/a").up()
    case.exited(False)
    not_called(case)
    case.service = Case("start", exec="/bin/a").service
    assert case(machine.timed_out) == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.STARTING, (Act.CALL_START,))


def test_sleep_in_place_of_a_restart_calls_stop() -> None:
    case = Case(*ALL, demand=True).up()
    assert case(machine.restart) == (State.WAITING, ())
    assert case(machine.sleep) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.WAITING, ())


# after a loss of spawnd


@pytest.mark.parametrize("alive", [False, True])
def test_a_function_that_ran_goes_on(alive: bool) -> None:
    case = Case("start", "stop")
    case(machine.start)
    case(machine.dependencies_met)
    before = case.life
    assert case(machine.recovered, alive) == (State.STARTING, ())
    assert case.life == before  # where it has ended, `exited` follows
    assert runs(case.service, case.life)


def test_a_process_that_was_about_to_be_made_is_made_by_the_next_spawnd() -> None:
    case = Case(*ALL, exec="/bin/a")
    case(machine.start)
    for step, act in ((machine.dependencies_met, Act.CALL_START), (None, Act.LAUNCH)):
        assert (case.exited() if step is None else case(step))[1] == (act,)
        before = case.life.state
        assert case(machine.not_begun) == (before, (act,))
    case(machine.executed)
    case(machine.stop)
    assert case.exited() == (State.STOPPING, (Act.CALL_STOP,))
    assert case(machine.not_begun) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


def test_older_processes_live_on_once_a_function_has_succeeded() -> None:
    case = Case("start", exec="/bin/a")
    case(machine.start)
    case(machine.dependencies_met)
    assert not spares_older(case.service, case.life)
    case.exited()
    assert case.life.set_up
    assert spares_older(case.service, case.life)


def test_one_without_a_process_is_still_up() -> None:
    case = Case("start", "stop").up()
    before = case.life
    case(machine.recovered, False)
    assert case.life == before
    assert not runs(case.service, case.life)


# what lives on


def test_what_start_has_started_lives_on_if_it_succeeded() -> None:
    case = Case("start", "stop")
    case(machine.start)
    case(machine.dependencies_met)
    assert spares_others(case.service, case.life, clean=True)
    assert not spares_others(case.service, case.life, clean=False)
    case.exited()
    case(machine.stop)
    assert not spares_others(case.service, case.life, clean=True)
