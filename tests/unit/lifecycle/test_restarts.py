"""The state machine: restarts, handover, clients of an old socket, and who lives on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from supervisor.lifecycle import machine, transitions
from supervisor.lifecycle.life import (
    Act,
    Cause,
    State,
    is_down,
    lets_end,
    spares_older,
    spares_others,
    tells_all,
)
from tests.unit.lifecycle.machine_case import CASES, Case


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.RELOADING])
def test_a_restart_hands_over_and_starts_again(state: State) -> None:
    case = CASES[state]()
    case.life = case.life._replace(failures=3, restarts=3)
    assert case(machine.restart) == (State.STOPPING, (Act.HANDOVER_SIGNAL,))
    assert case.exited() == (State.WAITING, ()), "nothing is released: descriptors and store stay"
    assert (case.life.failures, case.life.restarts) == (0, 0)


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.DONE, State.BACKOFF])
def test_a_restart_of_what_is_down_starts_it(state: State) -> None:
    assert CASES[state]()(machine.restart) == (State.WAITING, ())


def drains(**more: Any) -> Case:
    """Return a service that is to start anew, and has clients on a socket that is to be replaced."""
    case = Case(stop_timeout=5.0, **more).running()
    assert case(machine.restart, Cause.RESTART, "", True) == (State.STOPPING, (Act.DRAIN,))
    return case


def test_a_restart_waits_until_the_clients_of_an_old_socket_are_taken() -> None:
    case = drains(watchdog=1.0)
    assert case.life.watchdog_at is None
    assert case(machine.extended, 60.0) == (State.STOPPING, ())
    assert (case.life.deadline or 0.0) - case.now == transitions.DRAIN_LIMIT, "it has no say in that"
    assert case(machine.drained) == (State.STOPPING, (Act.HANDOVER_SIGNAL,))
    assert case.life.deadline == case.now + 5.0
    assert case(machine.drained) == (State.STOPPING, ()), "it is told once"
    assert case.exited() == (State.WAITING, ())


def test_clients_that_are_not_taken_hold_up_no_restart() -> None:
    case = drains()
    case.now += transitions.DRAIN_LIMIT
    assert case(machine.timed_out) == (State.STOPPING, (Act.HANDOVER_SIGNAL,))
    case.now += 5.0
    assert case(machine.timed_out) == (State.STOPPING, (Act.KILL,))


def test_a_stop_does_not_wait_for_the_clients_of_an_old_socket() -> None:
    case = drains(handover_signal=10)
    assert case(machine.stop) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.life.deadline == case.now + 5.0
    assert case(machine.drained) == (State.STOPPING, ())
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


def test_one_that_dies_before_it_has_taken_all_clients_starts_again() -> None:
    case = drains()
    assert case.exited(clean=False) == (State.WAITING, ())
    assert case(machine.drained) == (State.WAITING, ())


@pytest.mark.parametrize(("event", "args"), [(machine.resumed, ()), (machine.recovered, (True,))])
def test_another_spawnd_goes_on_with_a_restart_that_waits_for_clients(event: Any, args: tuple[Any, ...]) -> None:
    case = drains()
    case.now += 60.0
    assert case(event, *args) == (State.STOPPING, (Act.DRAIN,))
    assert case.life.deadline == case.now + transitions.DRAIN_LIMIT


def test_nothing_is_taken_by_a_process_that_is_not_up() -> None:
    case = Case(ready="notify").launched()
    assert case(machine.restart, Cause.RESTART, "", True) == (State.STOPPING, (Act.HANDOVER_SIGNAL,))


def test_a_stop_after_a_handover_says_that_there_is_no_successor() -> None:
    case = Case(handover_signal=10).running()
    case(machine.restart)
    assert case(machine.stop) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case(machine.stop) == (State.STOPPING, ())


def keeps(**more: Any) -> Case:
    return Case(handover_signal=10, kill_mode="process", **more)


def test_what_a_dead_process_has_kept_is_ended_by_another_that_is_stopped_at_once() -> None:
    case = keeps().running()
    assert case.exited()[0] is State.BACKOFF
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))
    assert case(machine.executed) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case.exited() == (State.STOPPED, (Act.RELEASE,)), "whether it was clean or not: that was the last one"
    assert case.life.reason == "stop requested"


def test_such_a_process_is_told_once_it_is_ready() -> None:
    """A signal that comes earlier would end it before it knew how to end what is kept."""
    case = keeps(ready="notify", start_timeout=5.0, stop_timeout=3.0).running()
    case.exited()
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))
    assert case(machine.executed) == (State.STOPPING, ())
    assert case(machine.ready) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case(machine.ready) == (State.STOPPING, ()), "said again"
    assert case.life.deadline == case.now + 3.0
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


@pytest.mark.parametrize(
    ("ready", "event"),
    [("fd", (machine.ready_closed,)), ("notify", (machine.timed_out,))],
)
def test_such_a_process_is_told_also_where_it_will_never_be_ready(ready: str, event: tuple[Any, ...]) -> None:
    case = keeps(ready=ready).running()
    case.exited()
    case(machine.stop)
    case(machine.executed)
    assert case(*event) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case(machine.timed_out) == (State.STOPPING, (Act.KILL,))


@pytest.mark.parametrize("later", [machine.ready, machine.timed_out])
def test_such_a_process_is_not_told_early_because_spawnd_was_lost(later: Any) -> None:
    case = keeps(ready="notify").running()
    case.exited()
    case(machine.stop)
    assert case(machine.recovered, True) == (State.STOPPING, ())
    assert case(later) == (State.STOPPING, (Act.STOP_SIGNAL,))


def test_such_a_process_that_needs_only_run_is_told_by_the_spawnd_that_finds_it() -> None:
    case = keeps().running()
    case.exited()
    case(machine.stop)
    assert case(machine.recovered, True) == (State.STOPPING, (Act.STOP_SIGNAL,))


def test_such_a_process_has_the_time_of_a_stop_if_a_start_has_no_limit() -> None:
    case = keeps(ready="notify", start_timeout=None, stop_timeout=3.0).running()
    case.exited()
    case(machine.stop)
    case(machine.executed)
    assert case.life.deadline == case.now + 3.0
    assert case(machine.timed_out) == (State.STOPPING, (Act.STOP_SIGNAL,))


def test_such_a_process_is_told_once_whatever_is_ordered_meanwhile() -> None:
    case = keeps(ready="notify").running()
    case.exited()
    case(machine.stop)
    case(machine.executed)
    for event in (machine.start, machine.stop):
        assert case(event) == (State.STOPPING, ()), "it is not ready"
    assert case(machine.ready) == (State.STOPPING, (Act.STOP_SIGNAL,))
    for event in (machine.start, machine.stop):
        assert case(event) == (State.STOPPING, ()), "it was told"
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))


def test_one_that_dies_of_something_else_than_its_stop_is_followed_by_another() -> None:
    case = keeps().running()
    case(machine.stop)
    assert case.exited() == (State.STOPPING, (Act.LAUNCH,))
    assert case.exited(clean=True) == (State.STOPPED, (Act.RELEASE,))


def cannot_fork(case: Case) -> tuple[State, tuple[Act, ...]]:
    return case(machine.start_failed, "no fork", 0.0)


def dies_untold(case: Case) -> tuple[State, tuple[Act, ...]]:
    return case.exited(clean=False)


@pytest.mark.parametrize("fail", [cannot_fork, dies_untold])
def test_a_stop_fails_that_could_not_end_what_is_kept_and_the_next_tries_again(fail: Any) -> None:
    case = keeps().running()
    case(machine.stop)
    case.exited()
    for _ in range(2):
        assert fail(case) == (State.FAILED, (Act.RELEASE,))
        assert case.life.cause is Cause.KEPT
        assert case.life.reason.startswith("stop requested; what it keeps was not ended: ")
        assert not is_down(case.life)
        assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))
    case(machine.executed)
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))
    assert is_down(case.life)
    assert case(machine.stop) == (State.STOPPED, ())


def test_a_failed_stop_is_over_if_the_definition_keeps_nothing_any_more() -> None:
    case = keeps().running()
    case(machine.stop)
    case.exited()
    cannot_fork(case)
    case.service = replace(case.service, kill_mode="all")
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))


@pytest.mark.parametrize("fail", [cannot_fork, dies_untold])
def test_such_a_process_need_not_exist_before_another_start(fail: Any) -> None:
    case = keeps().running()
    case(machine.stop)
    case.exited()
    case(machine.start)
    assert fail(case) == (State.WAITING, ())
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,)), "what it keeps is still there"


def test_one_that_was_told_has_ended_what_was_kept_whatever_follows() -> None:
    case = keeps().running()
    case.exited()
    case(machine.stop)
    case(machine.executed)
    case(machine.start)
    assert case.exited() == (State.WAITING, ())
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))


@pytest.mark.parametrize(
    ("keys", "status"),
    [({"start_limit": 1}, 1), ({"restart": "never"}, 1), ({"no_restart_status": frozenset({3})}, 3)],
)
def test_a_service_that_has_failed_for_good_keeps_things_until_a_stop(keys: dict[str, Any], status: int) -> None:
    case = keeps(**keys).running()
    assert case.exited(status=status) == (State.FAILED, (Act.RELEASE,))
    assert not is_down(case.life)
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))
    case(machine.executed)
    assert case.exited() == (State.STOPPED, (Act.RELEASE,))
    assert is_down(case.life)


def test_forgetting_its_failures_forgets_nothing_that_it_keeps() -> None:
    case = keeps(restart="never").running()
    case.exited()
    assert case(machine.reset) == (State.STOPPED, ())
    assert not is_down(case.life)
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))
    dies_untold(case)
    case(machine.reset)
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))
    case(machine.executed)
    case.exited()
    assert is_down(case.life)


@pytest.mark.parametrize("kill_mode", ["all", "process"])
def test_a_service_that_has_failed_and_hands_nothing_over_is_down(kill_mode: str) -> None:
    case = Case(kill_mode=kill_mode, restart="never").running()
    case.exited()
    assert is_down(case.life)
    assert case(machine.stop) == (State.FAILED, ())


def test_a_start_that_executes_nothing_keeps_nothing() -> None:
    case = keeps(restart="never").launched()
    cannot_fork(case)
    assert is_down(case.life)
    case = keeps().launched()
    case.exited()
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))
    case = keeps(restart="never").running()
    case.service = replace(case.service, check=("/bin/check",))
    case(machine.stop)
    case.exited(clean=True)
    case(machine.start)
    case(machine.dependencies_met)
    assert case.exited() == (State.FAILED, (Act.RELEASE,)), "the check"
    assert is_down(case.life)


def test_a_start_that_executes_nothing_leaves_what_an_earlier_process_has_kept() -> None:
    case = keeps().running()
    case.exited()
    case(machine.timed_out)
    case(machine.dependencies_met)
    cannot_fork(case)
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))


def test_a_process_that_was_executed_as_it_was_to_stop_may_have_kept_something() -> None:
    case = keeps(ready="notify").launched()
    case(machine.stop)
    case(machine.executed)
    assert case.exited() == (State.STOPPING, (Act.LAUNCH,))


def test_what_ran_unseen_while_there_was_no_spawnd_may_have_kept_something() -> None:
    case = keeps(restart="never").launched()
    case(machine.recovered, False)
    case.exited()
    assert not is_down(case.life)


def test_nothing_is_kept_before_the_first_start_and_after_an_orderly_stop() -> None:
    case = keeps()
    case(machine.start)
    assert case(machine.stop) == (State.STOPPED, (Act.RELEASE,))
    case = keeps().running()
    case(machine.stop)
    assert case.exited(clean=True) == (State.STOPPED, (Act.RELEASE,))


def test_a_stop_after_a_restart_without_handover_has_been_said_already() -> None:
    case = Case().running()
    case(machine.restart)
    assert case(machine.stop) == (State.STOPPING, ())


@pytest.mark.parametrize("kill_mode", ["all", "process"])
def test_others_live_on_after_a_crash_and_at_a_restart_never_after_a_stop(kill_mode: str) -> None:
    spares = kill_mode == "process"
    case = Case(kill_mode=kill_mode).running()
    assert spares_others(case.service, case.life) is spares
    case(machine.restart)
    assert spares_others(case.service, case.life) is spares
    case(machine.stop)
    assert not spares_others(case.service, case.life)
    case(machine.start)
    assert spares_others(case.service, case.life) is spares


def test_older_processes_live_on_until_the_end_that_follows() -> None:
    case = Case().running()
    assert not spares_older(case.service, case.life)
    case(machine.stop)
    assert spares_older(case.service, case.life)
    case.exited()
    assert not spares_older(case.service, case.life)
    case = Case(kill_mode="process").running()
    assert spares_older(case.service, case.life)


@pytest.mark.parametrize(("kill_mode", "lets"), [("all", True), ("group", True), ("mixed", False), ("process", False)])
def test_what_is_left_after_an_order_is_given_time_and_after_a_crash_none(kill_mode: str, lets: bool) -> None:
    for event in (machine.stop, machine.restart):
        case = Case(kill_mode=kill_mode).running()
        assert not lets_end(case.service, case.life)
        case(event)
        assert lets_end(case.service, case.life) is lets
        case.now += 10
        case(machine.timed_out)
        assert not lets_end(case.service, case.life)
    case = Case(kill_mode=kill_mode, watchdog=5.0).running()
    case(machine.watchdog_missed)
    assert not lets_end(case.service, case.life)


def test_a_handover_is_for_the_main_process_alone() -> None:
    case = Case(kill_mode="group", handover_signal=10).running()
    case(machine.restart)
    assert not tells_all(case.service, case.life)
    case(machine.stop)
    assert tells_all(case.service, case.life)
