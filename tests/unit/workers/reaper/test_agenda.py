from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.reaper.agenda import Agenda
from workers.reaper.node import Kind, Node


def node(name: str = "a") -> Node:
    return Node(None, name, f"/{name}", Kind.MEMBER, 1)


def test_in_the_order_of_their_times() -> None:
    agenda, first, second = Agenda(), node("1"), node("2")
    assert agenda.next_time() is None
    agenda.add(second, 2.0)
    agenda.add(first, 1.0)
    assert agenda.next_time() == 1.0
    assert agenda.take(0.9) is None
    assert [agenda.take(5.0) for _ in range(3)] == [first, second, None]


def test_another_time_takes_the_place_of_the_first() -> None:
    agenda, one = Agenda(), node()
    agenda.add(one, 1.0)
    agenda.add(one, 3.0)
    assert agenda.take(2.0) is None
    assert agenda.next_time() == 3.0
    agenda.add(one, 1.5)
    assert agenda.take(2.0) is one
    assert agenda.take(9.0) is None


def test_one_that_is_removed_is_not_taken() -> None:
    agenda, one = Agenda(), node()
    agenda.add(one, 1.0)
    agenda.remove(one)
    assert agenda.next_time() is None
    assert agenda.take(9.0) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 20)), max_size=60))
def test_each_has_its_last_time(steps: list[tuple[int, int | None]]) -> None:
    agenda = Agenda()
    nodes = [node(str(number)) for number in range(6)]
    times: dict[int, int] = {}
    for number, when in steps:
        if when is None:
            agenda.remove(nodes[number])
            times.pop(number, None)
        else:
            agenda.add(nodes[number], when)
            times[number] = when
    taken = []
    while (one := agenda.take(100)) is not None:
        taken.append(int(one.name))
    assert sorted(taken) == sorted(times)
    assert [times[number] for number in taken] == sorted(times.values())
