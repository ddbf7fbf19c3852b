from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.reaper.node import Kind, WatchedCgroup
from workers.reaper.schedule import DueHeap


def node(name: str = "a") -> WatchedCgroup:
    return WatchedCgroup(None, name, f"/{name}", Kind.MEMBER, 1)


def test_in_the_order_of_their_times() -> None:
    heap, first, second = DueHeap(), node("1"), node("2")
    assert heap.next_time() is None
    heap.add(second, 2.0)
    heap.add(first, 1.0)
    assert heap.next_time() == 1.0
    assert heap.take(0.9, 9) == []
    assert [heap.take(5.0, 1) for _ in range(3)] == [[first], [second], []]


def test_another_time_takes_the_place_of_the_first() -> None:
    heap, one = DueHeap(), node()
    heap.add(one, 1.0)
    heap.add(one, 3.0)
    assert heap.take(2.0, 9) == []
    assert heap.next_time() == 3.0
    heap.add(one, 1.5)
    assert heap.take(2.0, 9) == [one]
    assert heap.take(9.0, 9) == []


def test_one_that_is_removed_is_not_taken() -> None:
    heap, one = DueHeap(), node()
    heap.add(one, 1.0)
    heap.remove(one)
    assert heap.next_time() is None
    assert heap.take(9.0, 9) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 20)), max_size=60))
def test_each_has_its_last_time(steps: list[tuple[int, int | None]]) -> None:
    heap = DueHeap()
    nodes = [node(str(number)) for number in range(6)]
    times: dict[int, int] = {}
    for number, when in steps:
        if when is None:
            heap.remove(nodes[number])
            times.pop(number, None)
        else:
            heap.add(nodes[number], when)
            times[number] = when
    taken = []
    while some := heap.take(100, 2):
        assert len(some) <= 2
        taken += [int(one.name) for one in some]
    assert sorted(taken) == sorted(times)
    assert [times[number] for number in taken] == sorted(times.values())
