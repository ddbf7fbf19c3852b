"""Order between services."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.lifecycle.dependencies import (
    Hold,
    Obstacle,
    conflicts,
    dependents,
    in_need,
    in_words,
    needed,
    obstacle,
    satisfies,
    waits_for_ever,
)
from supervisor.lifecycle.life import Life, State

SATISFYING = (State.RUNNING, State.RELOADING, State.ASLEEP)


@dataclass(frozen=True)
class Unit:
    service: Service
    life: Life


def waits_for(service: Service, units: dict[str, Unit], rivals: Iterable[str] = ()) -> str | None:
    """Return the obstacles of a service, in words."""
    found = obstacle(service, units, rivals)
    return None if found is None else found.describe(units)


def services(**keys: dict[str, Any]) -> dict[str, Service]:
    return {name: Service(name, **values) for name, values in keys.items()}


def units(services: dict[str, Service], **states: State) -> dict[str, Unit]:
    """Waiting, but for those whose state is given."""
    return {name: Unit(service, Life(state=states.get(name, State.WAITING))) for name, service in services.items()}


@pytest.mark.parametrize("state", list(State))
def test_a_service_satisfies_while_it_is_up_or_asleep_and_a_task_once_it_ended_well(state: State) -> None:
    assert satisfies(Service("a"), Life(state=state)) is (state in SATISFYING)
    assert satisfies(Service("a", task=True), Life(state=state)) is (state is State.DONE)


@pytest.mark.parametrize("state", list(State))
def test_what_depends_waits_until_the_other_is_up(state: State) -> None:
    both = services(a={"depends": ("b",)}, b={})
    reason = waits_for(both["a"], units(both, b=state))
    why = " (never started)" if state in (State.BACKOFF, State.FAILED) else ""
    assert reason == (None if state in SATISFYING else f"needs b, which {in_words(state)}{why}")


def test_what_depends_on_what_is_not_there_waits_and_what_comes_after_it_does_not() -> None:
    assert waits_for(Service("a", depends=("b",)), {}) == "needs b, which is not defined"
    assert waits_for(Service("a", after=("b",)), {}, ["c"]) is None


@pytest.mark.parametrize("state", list(State))
def test_what_comes_after_waits_only_while_the_other_is_on_its_way(state: State) -> None:
    both = services(a={"after": ("b",)}, b={})
    reason = waits_for(both["a"], units(both, b=state))
    assert reason == (f"comes after b, which {in_words(state)}" if state in (State.WAITING, State.STARTING) else None)


def test_an_obstacle_is_told_by_kind_and_name() -> None:
    both = services(a={"depends": ("b",)}, b={})
    assert obstacle(both["a"], units(both)) == Obstacle(Hold.DEPENDS, "b")
    assert Obstacle(Hold.ADDRESS, "b").describe(units(both)) == "needs an address that b is about to give up"


def test_what_comes_after_one_that_will_never_start_does_not_wait_for_it() -> None:
    graph = services(a={"after": ("b",)}, b={"depends": ("c",)}, c={"depends": ("d",)}, d={})
    assert waits_for(graph["a"], units(graph, d=State.STARTING)) == "comes after b, which is waiting"
    for state in (State.STOPPED, State.FAILED, State.DONE):
        assert waits_for(graph["a"], units(graph, d=state)) is None


def test_what_comes_after_a_task_waits_until_it_has_ended() -> None:
    both = services(a={"after": ("b",)}, b={"task": True})
    assert waits_for(both["a"], units(both, b=State.RUNNING)) == "comes after b, which is running"
    assert waits_for(both["a"], units(both, b=State.DONE)) is None
    assert waits_for(both["a"], units(both, b=State.FAILED)) is None


@pytest.mark.parametrize("state", list(State))
def test_what_conflicts_waits_until_the_other_has_no_process(state: State) -> None:
    both = services(a={}, b={})
    reason = waits_for(both["a"], units(both, b=state), ["b"])
    alive = state in (State.STARTING, State.RUNNING, State.RELOADING, State.STOPPING, State.ASLEEP)
    assert reason == (f"conflicts with b, which {in_words(state)}" if alive else None)


def test_the_first_reason_is_told_needs_before_order_before_conflicts() -> None:
    graph = services(a={"depends": ("b", "c"), "after": ("d",)}, b={}, c={}, d={}, e={})
    states = {"b": State.RUNNING, "c": State.FAILED, "d": State.STARTING, "e": State.STOPPING}
    told = []
    for name, state in (("c", State.RUNNING), ("d", State.RUNNING), ("e", State.STOPPED)):
        told.append(waits_for(graph["a"], units(graph, **states), ["e"]))
        states[name] = state
    assert told == [
        "needs c, which has failed (never started)",
        "comes after d, which is starting",
        "conflicts with e, which is stopping",
    ]
    assert waits_for(graph["a"], units(graph, **states), ["e"]) is None


def test_what_waits_for_ever_says_for_what() -> None:
    graph = services(a={"depends": ("b",)}, b={"depends": ("c",), "after": ("d",)}, c={}, d={})
    end = "needs b, which needs c, which has failed (never started)"
    assert waits_for_ever(graph["a"], units(graph, c=State.FAILED)) == end
    for state in (State.WAITING, State.STARTING, State.RUNNING, State.STOPPING, State.BACKOFF):
        assert waits_for_ever(graph["a"], units(graph, c=state, d=State.FAILED)) is None
    lonely = services(a={"depends": ("gone",)})
    assert waits_for_ever(lonely["a"], units(lonely)) == "needs gone, which is not defined"


def test_the_end_of_a_long_chain_is_found() -> None:
    """As with `needed`, no recursion may end it."""
    chain = {f"s{n}": Service(f"s{n}", depends=(f"s{n - 1}",) if n else ()) for n in range(5000)}
    reason = waits_for_ever(chain["s4999"], units(chain, s0=State.FAILED))
    assert reason is not None
    first = "".join(f"needs s{n}, which " for n in range(4998, 4993, -1))
    last = "".join(f"needs s{n}, which " for n in range(5, 0, -1))
    assert reason == f"{first}needs …, which {last}needs s0, which has failed (never started)"
    assert waits_for_ever(chain["s4999"], units(chain, s0=State.STARTING)) is None
    lives = {name: Life(State.RUNNING) for name in chain}
    assert len(in_need(["s0"], chain, lives)) == 4999


def test_a_second_way_is_looked_at_after_the_first() -> None:
    graph = services(a={"depends": ("b", "e")}, b={"depends": ("c", "d")}, c={}, d={}, e={"depends": ("f",)}, f={})
    assert waits_for_ever(graph["a"], units(graph, d=State.FAILED)) == (
        "needs b, which needs d, which has failed (never started)"
    )
    assert waits_for_ever(graph["a"], units(graph, f=State.STOPPED)) == (
        "needs e, which needs f, which is stopped (never started)"
    )


def test_a_ring_is_asked_round_once() -> None:
    """No definition makes one, but two reloads may, for a moment."""
    ring = services(a={"depends": ("b",)}, b={"depends": ("c",)}, c={"depends": ("a", "b")})
    assert waits_for_ever(ring["a"], units(ring)) is None


def test_conflicts_hold_both_ways_whoever_says_so() -> None:
    assert conflicts(services(a={"conflicts": ("b", "c")}, b={}, c={"conflicts": ("a",)}, d={})) == {
        "a": {"b", "c"},
        "b": {"a"},
        "c": {"a"},
    }


def test_needed_puts_each_after_what_it_needs() -> None:
    graph = services(
        web={"depends": ("db", "net")}, db={"depends": ("disk",)}, net={}, disk={}, other={}, late={"after": ("web",)}
    )
    assert needed(["web"], graph) == ["disk", "db", "net", "web"]
    assert needed(["late", "net", "web"], graph) == ["late", "net", "disk", "db", "web"]
    assert needed([], graph) == []


def test_needed_leaves_out_what_is_not_there() -> None:
    assert needed(["a"], services(a={"depends": ("gone", "b")}, b={})) == ["b", "a"]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Service]:
    """Any graph without a cycle: each depends on and comes after earlier ones only."""
    count = draw(st.integers(1, 12))
    names = [f"s{number}" for number in range(count)]
    earlier = [st.lists(st.sampled_from(names[:n]), unique=True) if n else st.just([]) for n in range(count)]
    return {
        name: Service(name, depends=tuple(draw(earlier[n])), after=tuple(draw(earlier[n])))
        for n, name in enumerate(names)
    }


def _closure(names: list[str], graph: dict[str, Service]) -> set[str]:
    found = set(names)
    while more := {other for name in found for other in graph[name].depends} - found:
        found |= more
    return found


@given(graph=graphs(), data=st.data())
def test_needed_holds_for_any_graph(graph: dict[str, Service], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True))
    order = needed(names, graph)
    assert len(set(order)) == len(order)
    assert set(order) == _closure(names, graph)
    for name in order:
        assert all(order.index(other) < order.index(name) for other in graph[name].depends)


def test_needed_takes_a_long_chain() -> None:
    """A thousand services one after the other: no recursion may end it."""
    chain = {f"s{n}": Service(f"s{n}", depends=(f"s{n - 1}",) if n else ()) for n in range(5000)}
    assert needed(["s4999"], chain) == list(chain)


def test_needed_asks_for_each_once_in_a_lattice() -> None:
    """Each layer needs both of the layer below: as many ways as there are numbers of 60 bits."""
    lattice = {
        f"{side}{n}": Service(f"{side}{n}", depends=(f"a{n - 1}", f"b{n - 1}") if n else ())
        for n in range(60)
        for side in "ab"
    }
    assert len(needed(["a59"], lattice)) == 119


def test_dependents_are_those_that_come_later_by_need_or_by_order() -> None:
    graph = services(a={}, b={"depends": ("a",)}, c={"after": ("a", "b")}, d={})
    assert dependents(graph) == {"a": {"b", "c"}, "b": {"c"}}


def test_who_is_in_need() -> None:
    needs = {"a": ("b",), "b": ("c",), "c": (), "d": ("c",), "e": ("a", "d"), "f": ()}
    graph = {name: Service(name, depends=others) for name, others in needs.items()}
    lives = {name: unit.life for name, unit in units(graph, **dict.fromkeys("abcdef", State.RUNNING)).items()}
    assert in_need(["c"], graph, lives) == ["a", "b", "d", "e"]
    assert in_need(["c", "b"], graph, lives) == ["a", "d", "e"]
    assert in_need(["f"], graph, lives) == []
    lives["b"] = Life(State.STOPPED)
    assert in_need(["c"], graph, lives) == ["d", "e"]  # a has lost b, and not because of c
