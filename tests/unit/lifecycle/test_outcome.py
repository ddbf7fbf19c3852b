from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import in_words, waits_for_ever
from supervisor.lifecycle.life import AT_REST, Life, State, Then, goes_down
from supervisor.lifecycle.transaction import DONE, ENDED_BEFORE, Outcome, restarted, started, stopped


@dataclass
class Unit:
    service: Service
    life: Life


def units(*entries: tuple[Service, State]) -> dict[str, Unit]:
    return {service.name: Unit(service, Life(state, reason=f"{service.name}'s reason")) for service, state in entries}


WEB = Service("web")
JOB = Service("job", task=True)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State.RUNNING, DONE),
        (State.RELOADING, DONE),
        (State.WAITING, None),
        (State.STARTING, None),
        (State.STOPPING, None),
        (State.BACKOFF, Outcome(False, "why")),
        (State.FAILED, Outcome(False, "why")),
        (State.STOPPED, Outcome(False, "why")),
        (State.DONE, Outcome(False, "why")),
    ],
)
def test_a_start(state: State, outcome: Outcome | None) -> None:
    assert started(WEB, Life(state, reason="why"), {}) == outcome


def test_a_start_of_a_task() -> None:
    assert started(JOB, Life(State.RUNNING), {}) is None
    assert started(JOB, Life(State.DONE), {}) == DONE
    assert started(JOB, Life(State.STOPPED, reason="why"), {}) == Outcome(False, "why")


@pytest.mark.parametrize(
    ("service", "life", "outcome"),
    [
        (WEB, Life(State.RUNNING, starts=3), None),
        (WEB, Life(State.STOPPING, starts=3), None),
        (WEB, Life(State.WAITING, starts=3), None),
        (WEB, Life(State.STARTING, starts=4), None),
        (WEB, Life(State.RUNNING, starts=4), DONE),
        (WEB, Life(State.RELOADING, starts=5), DONE),
        (WEB, Life(State.BACKOFF, starts=4, reason="why"), Outcome(False, "why")),
        (WEB, Life(State.BACKOFF, starts=3, reason="check failed"), Outcome(False, "check failed")),
        (WEB, Life(State.STOPPED, starts=3, reason="why"), Outcome(False, "why")),
        (JOB, Life(State.DONE, starts=3), None),
        (JOB, Life(State.DONE, starts=4), DONE),
    ],
)
def test_a_restart(service: Service, life: Life, outcome: Outcome | None) -> None:
    assert restarted(service, life, {}, starts=3) == outcome


@given(st.sampled_from(State), st.sampled_from(Then), st.booleans())
def test_a_stop(state: State, then: Then, was_going_down: bool) -> None:
    life = Life(state, then=then)
    outcome = stopped(life, was_going_down)
    if state in AT_REST:
        failed = state is State.FAILED and was_going_down  # its function `stop`, as nothing else does that to a stop
        at_once = state is not State.STOPPED and not was_going_down
        assert outcome == (Outcome(False, life.reason) if failed else ENDED_BEFORE if at_once else DONE)
    elif goes_down(life) or not was_going_down:
        assert outcome is None
    else:
        assert outcome is not None
        assert not outcome.ok


def test_only_a_stop_for_good_goes_down() -> None:
    down = {(state, then) for state, then in product(State, Then) if goes_down(Life(state, then=then))}
    assert down == {(State.STOPPING, Then.REST)}


# waiting for ever

DB, APP = Service("db"), Service("app", depends=("db",))


@pytest.mark.parametrize("state", [State.FAILED, State.STOPPED, State.DONE])
def test_a_dependency_at_rest(state: State) -> None:
    all_units = units((APP, State.WAITING), (DB, state))
    assert waits_for_ever(APP, all_units) == f"needs db, which {in_words(state)} (db's reason)"
    assert started(APP, Life(State.WAITING), all_units) == Outcome(
        False, f"needs db, which {in_words(state)} (db's reason)"
    )


@pytest.mark.parametrize(
    "state", [State.WAITING, State.STARTING, State.RUNNING, State.RELOADING, State.STOPPING, State.BACKOFF]
)
def test_a_dependency_that_may_still_come(state: State) -> None:
    assert waits_for_ever(APP, units((APP, State.WAITING), (DB, state))) is None


def test_a_task_that_has_ended_well_is_no_obstacle() -> None:
    app = Service("app", depends=("job",))
    assert waits_for_ever(app, units((app, State.WAITING), (JOB, State.DONE))) is None
    assert waits_for_ever(app, units((app, State.WAITING), (JOB, State.FAILED))) is not None


def test_a_dependency_that_waits_for_ever_itself() -> None:
    web = Service("web", depends=("app",))
    all_units = units((web, State.WAITING), (APP, State.WAITING), (DB, State.FAILED))
    assert waits_for_ever(web, all_units) == "needs app, which needs db, which has failed (db's reason)"


def test_one_that_it_only_comes_after_is_no_obstacle() -> None:
    web = Service("web", after=("app",))
    for state in (State.FAILED, State.STARTING, State.WAITING):
        assert waits_for_ever(web, units((web, State.WAITING), (APP, state), (DB, State.FAILED))) is None


def test_one_that_is_not_defined_any_more() -> None:
    web = Service("web", depends=("gone",), after=("gone",))
    assert waits_for_ever(web, units((web, State.WAITING))) == "needs gone, which is not defined"
    assert waits_for_ever(Service("web", after=("gone",)), {}) is None


def test_a_cycle_ends() -> None:
    one, two = Service("one", depends=("two",)), Service("two", after=("one",))
    assert waits_for_ever(one, units((one, State.WAITING), (two, State.WAITING))) is None


def test_each_is_asked_once() -> None:
    """A lattice in which there are 2**40 ways down."""

    def layers() -> Iterator[Service]:
        for layer in range(40):
            below = (f"a{layer + 1}", f"b{layer + 1}")
            yield Service(f"a{layer}", depends=below)
            yield Service(f"b{layer}", depends=below)
        yield from (Service("a40"), Service("b40"))

    all_units = units(*((service, State.WAITING) for service in layers()))
    assert waits_for_ever(all_units["a0"].service, all_units) is None
