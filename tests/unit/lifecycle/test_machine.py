"""The state machine, event by event."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import pytest

from supervisor.definitions.service import Backoff, Service
from supervisor.lifecycle import machine, transitions
from supervisor.lifecycle.life import (
    AT_REST,
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
    lets_end,
    spares_others,
    tells_all,
)
from supervisor.lifecycle.machine import ImpossibleEvent

NOW = 1000.0


class Case:
    """A service and its life; each call is an event, `acts` what the last one asked for."""

    def __init__(self, **keys: Any) -> None:
        keys.setdefault("backoff", Backoff(jitter=0))
        self.service = Service("a", exec="/bin/a", **keys)
        self.life = Life()
        self.now = NOW
        self.acts: tuple[Act, ...] = ()

    def __call__(self, event: Callable[..., Transition], *args: Any) -> tuple[State, tuple[Act, ...]]:
        self.life, self.acts = event(self.service, self.life, self.now, *args)
        return self.life.state, self.acts

    def exited(
        self, clean: bool = False, reason: str = "exited with status 1", status: int | None = None
    ) -> tuple[State, tuple[Act, ...]]:
        return self(machine.exited, clean, reason, 0.0, status)

    def launched(self) -> Case:
        self(machine.start)
        assert self(machine.dependencies_met) == (State.STARTING, (Act.LAUNCH,))
        return self

    def running(self) -> Case:
        self.launched()
        self(machine.executed)
        if self.service.ready != "exec":
            self(machine.ready)
        assert self.life.state is State.RUNNING
        return self

    def stopping(self) -> Case:
        self.running()
        self(machine.stop)
        return self

    def failed_once(self) -> Case:
        self.launched().exited()
        return self


# one life in each state

CASES: dict[State, Callable[[], Case]] = {
    State.STOPPED: Case,
    State.WAITING: lambda: _after(Case(), machine.start),
    State.STARTING: lambda: Case().launched(),
    State.RUNNING: lambda: Case().running(),
    State.RELOADING: lambda: _after(Case().running(), machine.reloading),
    State.STOPPING: lambda: Case().stopping(),
    State.BACKOFF: lambda: Case().failed_once(),
    State.FAILED: lambda: Case(start_limit=1).failed_once(),
    State.DONE: lambda: _done(Case(task=True).running()),
}


def _after(case: Case, event: Callable[..., Transition]) -> Case:
    case(event)
    return case


def _done(case: Case) -> Case:
    case.exited(clean=True)
    return case


POSSIBLE: dict[Callable[..., Transition], Set[State]] = {
    machine.dependencies_met: {State.WAITING},
    machine.executed: {State.STARTING, State.STOPPING},
    machine.start_failed: {State.STARTING},
    machine.exited: {State.STARTING, State.RUNNING, State.RELOADING, State.STOPPING},
    machine.timed_out: {State.STARTING, State.RELOADING, State.STOPPING, State.BACKOFF},
    **dict.fromkeys(
        (
            machine.start,
            machine.stop,
            machine.restart,
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


# start


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


# failures


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


# stop


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


# restart and handover


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
    """One that is to start anew, and has clients on a socket that is to be replaced."""
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
    [("fd", (machine.ready_closed,)), ("notify", (machine.timed_out,)), ("notify", (machine.recovered, True))],
)
def test_such_a_process_is_told_also_where_it_will_never_be_ready_or_was_not_heard(
    ready: str, event: tuple[Any, ...]
) -> None:
    case = keeps(ready=ready).running()
    case.exited()
    case(machine.stop)
    case(machine.executed)
    assert case(*event) == (State.STOPPING, (Act.STOP_SIGNAL,))
    assert case(machine.timed_out) == (State.STOPPING, (Act.KILL,))


def test_one_that_dies_of_something_else_than_its_stop_is_followed_by_another() -> None:
    case = keeps().running()
    case(machine.stop)
    assert case.exited() == (State.STOPPING, (Act.LAUNCH,))
    assert case(machine.start_failed, "no fork", 0.0) == (State.STOPPED, (Act.RELEASE,))


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


# time-outs


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


# watchdog


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


# what brought it there


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
# another spawnd was lost


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
        assert case.life == before


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


def test_a_module_is_torn_down_before_it_stays_down() -> None:
    case = Case(no_restart_status=(3,), functions=("stop",)).running()
    assert case.exited(False, "exited with status 3", 3) == (State.STOPPING, (Act.CALL_STOP,))
    assert case.exited(True, "stop succeeded")[0] is State.FAILED
    assert case.life.reason.startswith("exited with status 3")


def test_a_task_has_come_up_when_it_is_done() -> None:
    """What needs it starts then, and not when its program runs."""
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
