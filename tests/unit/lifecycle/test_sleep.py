"""Services on demand: asleep with open sockets, woken by a client, and asleep again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.definitions.service import Accept, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.dependencies import obstacle
from supervisor.lifecycle.life import (
    Act,
    Cause,
    Life,
    State,
    Then,
    comes_up,
    is_down,
    is_wanted,
    lets_end,
    lies_down,
    spares_others,
)
from supervisor.lifecycle.transaction import Standing, Transaction, restarted, slept
from tests.unit.lifecycle.machine_case import CASES, Case

OF_REST = (State.STOPPED, State.FAILED, State.DONE, State.BACKOFF)


def on_demand(**keys: object) -> Case:
    return Case(demand=True, start_limit=None, **keys)


def test_an_acceptor_starts_again_after_a_failure_and_sleeps_after_success() -> None:
    case = on_demand(accept=Accept(), healthy_after=5.0).running()
    case.now += 10
    assert case.exited(clean=False) == (State.WAITING, ())
    assert case.life.then is Then.START
    case(machine.dependencies_met)
    case(machine.executed)
    assert case.exited(clean=False)[0] is State.BACKOFF
    case.now += 100
    assert case(machine.timed_out)[0] is State.WAITING
    assert case.life.then is Then.START
    case = on_demand(accept=Accept()).running()
    assert case.exited(clean=True) == (State.WAITING, ())
    assert case.life.then is Then.SLEEP


def test_an_acceptor_that_cannot_be_started_is_tried_again_within_a_second_for_the_next_client() -> None:
    case = on_demand(accept=Accept()).launched()
    for failure in range(1, 20):
        assert case(machine.start_failed, "chroot: gone", 0.0)[0] is State.BACKOFF
        assert case.life.failures == failure
        assert case.life.deadline is not None
        assert 0 < case.life.deadline - case.now <= 1
        case.now = case.life.deadline
        assert case(machine.timed_out) == (State.WAITING, ())
        assert case(machine.dependencies_met) == (State.ASLEEP, (Act.SLEEP,))
        case(machine.start, Cause.CLIENT)
        assert case(machine.dependencies_met) == (State.STARTING, (Act.LAUNCH,))


def test_only_clients_shorten_a_delay() -> None:
    """Without a socket there are none, and a check of the definition's own may take long."""
    asleep = on_demand(accept=Accept())
    asleep(machine.sleep)
    asleep(machine.dependencies_met)
    checked = on_demand(accept=Accept(), check=("/bin/false",))
    checked(machine.start)
    waits: dict[str, list[float]] = {"socket": [], "check": []}
    for _ in range(10):
        checked(machine.dependencies_met)
        asleep(machine.start_failed, "no interface", 0.0)
        checked.exited()
        for name, case in (("socket", asleep), ("check", checked)):
            assert case.life.deadline is not None
            waits[name].append(case.life.deadline - case.now)
            case(machine.timed_out)
            assert lies_down(case.life)
            case(machine.dependencies_met)
        checked(machine.start, Cause.CLIENT)
    assert waits["socket"] == waits["check"]
    assert waits["socket"][-1] == asleep.service.backoff.max


def test_sessions_outlive_their_acceptor_until_a_stop() -> None:
    case = on_demand(accept=Accept()).running()
    assert spares_others(case.service, case.life)
    for order, spares in ((machine.restart, True), (machine.sleep, True), (machine.stop, False)):
        case(order)
        assert case.life.state is State.STOPPING
        assert spares_others(case.service, case.life) is spares
        assert lets_end(case.service, case.life) is not spares


def test_an_order_says_what_becomes_of_sessions() -> None:
    case = on_demand(accept=Accept()).running()
    case(machine.restart, Cause.RESTART, "", False, True)
    assert (spares_others(case.service, case.life), lets_end(case.service, case.life)) == (False, True)
    assert case.exited(clean=True) == (State.WAITING, ())
    assert (case.life.then, case.life.keeps_sessions) == (Then.START, None)
    case = on_demand(accept=Accept()).running()
    case(machine.stop, Cause.STOP, "", True)
    assert (spares_others(case.service, case.life), lets_end(case.service, case.life)) == (True, False)
    assert case.exited(clean=True) == (State.STOPPED, (Act.RELEASE,))
    assert case.life.keeps_sessions
    assert not is_down(case.life)
    assert case(machine.stop, Cause.STOP, "", True) == (State.STOPPED, (Act.RELEASE,))
    assert case.life.keeps_sessions
    assert case(machine.stop) == (State.STOPPING, (Act.END_LEFT,))
    assert (spares_others(case.service, case.life), lets_end(case.service, case.life)) == (False, True)
    assert case.exited(clean=False) == (State.STOPPED, (Act.RELEASE,))
    assert is_down(case.life)


def test_the_last_order_says_what_becomes_of_sessions() -> None:
    case = on_demand(accept=Accept()).running()
    case(machine.stop, Cause.STOP, "", True)
    case(machine.stop)
    assert not spares_others(case.service, case.life)
    case(machine.start)
    assert spares_others(case.service, case.life)
    case(machine.restart, Cause.RESTART, "", False, True)
    assert not spares_others(case.service, case.life)


@pytest.mark.parametrize("is_up_again", [True, False])
def test_sessions_outlive_a_service_that_has_failed_for_good(is_up_again: bool) -> None:
    case = Case(demand=True, accept=Accept(), start_limit=1).running()
    assert case.exited(clean=False) == (State.FAILED, (Act.RELEASE,))
    assert case.life.keeps_sessions
    if is_up_again:
        assert case(machine.start) == (State.WAITING, ())
        assert case.life.keeps_sessions is None
    else:
        case(machine.reset)
        assert case.life.keeps_sessions
        assert case(machine.stop) == (State.STOPPING, (Act.END_LEFT,))


@pytest.mark.parametrize("state", [State.ASLEEP, State.BACKOFF, State.WAITING, State.STOPPED])
def test_a_restart_ends_sessions_without_an_acceptor(state: State) -> None:
    case = on_demand(accept=Accept())
    case.life = CASES[state]().life
    assert case(machine.restart, Cause.RESTART, "", False, True) == (State.STOPPING, (Act.END_LEFT,))
    assert (spares_others(case.service, case.life), lets_end(case.service, case.life)) == (False, True)
    assert case.exited(clean=False) == (State.WAITING, ())
    assert case.life.then is Then.SLEEP


def test_only_sessions_are_kept() -> None:
    case = on_demand().running()
    case(machine.stop, Cause.STOP, "", True)
    assert case.life.keeps_sessions is None
    case = on_demand().running()
    case(machine.restart, Cause.RESTART, "", False, True)
    assert case.life.keeps_sessions is None


def asleep(**keys: object) -> Case:
    case = on_demand(**keys)
    case(machine.sleep)
    assert case(machine.dependencies_met) == (State.ASLEEP, (Act.SLEEP,))
    return case


def test_a_client_starts_what_is_asleep() -> None:
    case = asleep()
    assert case(machine.start, Cause.CLIENT) == (State.WAITING, ())
    assert (case.life.reason, comes_up(case.life)) == ("a client came", True)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.LAUNCH,))


@pytest.mark.parametrize("state", OF_REST)
def test_what_is_down_opens_its_sockets_and_starts_nothing(state: State) -> None:
    case = CASES[state]()
    assert case(machine.sleep) == (State.WAITING, ())
    assert (lies_down(case.life), comes_up(case.life), case.life.failures) == (True, False, 0)
    assert case(machine.dependencies_met) == (State.ASLEEP, (Act.SLEEP,))


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.RELOADING])
def test_an_order_to_sleep_ends_the_process_as_for_a_successor(state: State) -> None:
    case = CASES[state]()
    assert case(machine.sleep) == (State.STOPPING, (Act.HANDOVER_SIGNAL,))
    assert is_wanted(case.life)
    assert case.exited(clean=True) == (State.WAITING, ())
    assert case(machine.dependencies_met) == (State.ASLEEP, (Act.SLEEP,))


def test_the_last_order_counts_while_the_process_ends() -> None:
    case = Case().running()
    case(machine.sleep)
    assert case(machine.start) == (State.STOPPING, ())
    assert case.life.then is Then.START
    case(machine.sleep)
    assert case(machine.stop)[0] is State.STOPPING
    assert case.exited(clean=True) == (State.STOPPED, (Act.RELEASE,))


def test_what_waits_to_start_may_sleep_instead_and_the_other_way_round() -> None:
    case = CASES[State.WAITING]()
    assert (case(machine.sleep)[0], lies_down(case.life)) == (State.WAITING, True)
    assert (case(machine.start)[0], lies_down(case.life)) == (State.WAITING, False)
    assert case(machine.dependencies_met) == (State.STARTING, (Act.LAUNCH,))


def test_a_stop_closes_the_sockets() -> None:
    assert asleep()(machine.stop) == (State.STOPPED, (Act.RELEASE,))


def test_a_stop_gives_sessions_without_an_acceptor_time_to_end() -> None:
    idle = on_demand(accept=Accept())
    idle(machine.sleep)
    idle(machine.dependencies_met)
    crashed = on_demand(accept=Accept()).running()
    assert crashed.exited(clean=False)[0] is State.BACKOFF
    waiting = on_demand(accept=Accept(), healthy_after=0.0).running()
    assert waiting.exited(clean=False)[0] is State.WAITING
    for case in (idle, crashed, waiting):
        assert case(machine.stop) == (State.STOPPING, (Act.END_LEFT,))
        assert lets_end(case.service, case.life)
        assert case.life.deadline is not None
        assert case.exited(clean=False) == (State.STOPPED, (Act.RELEASE,))


def test_a_stop_ends_what_a_service_has_kept_while_it_sleeps() -> None:
    case = on_demand(kill_mode="process", handover_signal=10).running()
    case(machine.sleep)
    case.exited(clean=True)
    case(machine.dependencies_met)
    assert case(machine.stop) == (State.STOPPING, (Act.LAUNCH,))


@pytest.mark.parametrize("event", [machine.sleep, machine.restart, machine.reset])
def test_what_sleeps_goes_on_sleeping(event: object) -> None:
    case = asleep()
    before = case.life
    assert case(event) == (State.ASLEEP, ())  # type: ignore[arg-type]
    assert case.life == before


def test_an_end_with_success_leads_back_to_sleep_whatever_restart_says() -> None:
    for restart in ("always", "on-failure", "never"):
        case = on_demand(restart=restart).running()
        case.life = case.life._replace(failures=2)
        assert case.exited(clean=True) == (State.WAITING, ())
        assert (lies_down(case.life), case.life.failures) == (True, 2)
        case(machine.dependencies_met)
        assert (case(machine.served), case.life.failures) == ((State.ASLEEP, ()), 0)


def test_a_failure_leads_to_a_delay_and_then_to_sleep() -> None:
    case = on_demand().launched()
    for failures in range(1, 30):
        assert case.exited() == (State.BACKOFF, ())
        assert case.life.failures == failures
        assert (case(machine.timed_out), lies_down(case.life)) == ((State.WAITING, ()), True)
        assert case(machine.dependencies_met) == (State.ASLEEP, (Act.SLEEP,))
        case(machine.start, Cause.CLIENT)  # which forgets no failures
        case(machine.dependencies_met)


def test_what_served_nobody_has_failed() -> None:
    case = asleep()
    assert case(machine.unserved, "its client waits", 0.0) == (State.BACKOFF, ())
    assert (case.life.cause, case.life.failures, case.life.reason) == (Cause.UNSERVED, 1, "its client waits")


def test_sockets_that_cannot_be_opened_are_a_failure() -> None:
    case = asleep()
    assert case(machine.start_failed, "the port is taken", 0.0) == (State.BACKOFF, ())


def test_sleep_goes_on_after_an_exec_and_a_loss() -> None:
    case = asleep()
    assert case(machine.resumed) == (State.ASLEEP, (Act.SLEEP,))
    assert case(machine.recovered, False) == (State.ASLEEP, (Act.SLEEP,))


class Unit:
    def __init__(self, service: Service, life: Life) -> None:
        self.service = service
        self.life = life


def test_only_network_namespaces_hold_back_what_is_to_sleep() -> None:
    service = Service("a", exec="/a", demand=True, depends=("db", "netns@x"), after=("late",))
    lies, down = Life(State.WAITING, then=Then.SLEEP), Life()
    units = {
        "a": Unit(service, lies),
        "db": Unit(Service("db", exec="/db"), down),
        "netns@x": Unit(Service("netns@x", worker="netns"), down),
        "late": Unit(Service("late", exec="/late"), Life(State.STARTING)),
    }
    found = obstacle(service, units)
    assert found is not None
    assert found.name == "netns@x"
    units["netns@x"].life = Life(State.RUNNING)
    assert obstacle(service, units) is None
    units["a"].life = Life(State.WAITING, then=Then.START)
    found = obstacle(service, units)
    assert found is not None
    assert found.name == "db"


SERVICES = {
    "web": Service("web", exec="/web", demand=True, depends=("app", "netns@x")),
    "app": Service("app", exec="/app", demand=True, depends=("db",)),
    "db": Service("db", exec="/db"),
    "netns@x": Service("netns@x", worker="netns"),
}


def transaction(**lives: Life) -> Transaction:
    return Transaction(Standing(SERVICES, {name: lives.get(name, Life()) for name in SERVICES}, {}, ()))


def test_at_boot_what_is_on_demand_sleeps_and_needs_its_namespace_only() -> None:
    boot = transaction()
    boot.bring_up(["web"])
    assert {name: up.sleeps for name, up in boot.up.items()} == {"netns@x": False, "web": True}


def test_a_client_starts_one_and_lets_what_it_needs_sleep() -> None:
    wake = transaction(web=Life(State.ASLEEP))
    wake.bring_up(["web"], cause=Cause.CLIENT, ordered=True)
    assert {name: up.sleeps for name, up in wake.up.items()} == {"app": True, "netns@x": False, "web": False}
    assert wake.up["web"].cause is Cause.CLIENT


def test_what_runs_is_not_put_to_sleep() -> None:
    boot = transaction(web=Life(State.RUNNING))
    boot.bring_up(["web"])
    assert not boot.up["web"].sleeps


def test_outcomes() -> None:
    service, units = SERVICES["web"], {name: Unit(each, Life()) for name, each in SERVICES.items()}
    sleeping = Life(State.ASLEEP, starts=3)
    assert restarted(service, sleeping, units, 3) == (True, "it is asleep: its next process is a new one anyway")
    assert slept(service, sleeping, units) == (True, "")
    assert slept(service, Life(State.STOPPING, then=Then.SLEEP), units) is None
    assert slept(service, Life(State.BACKOFF, reason="the port is taken"), units) == (False, "the port is taken")
    units["web"].life = Life(State.WAITING, then=Then.SLEEP)
    assert slept(service, units["web"].life, units) == (False, "needs netns@x, which is stopped (never started)")
    assert slept(service, Life(State.RUNNING, cause=Cause.CLIENT), units) == (True, "")
    assert slept(replace(service), Life(State.RUNNING), units) == (False, "it was started meanwhile")
