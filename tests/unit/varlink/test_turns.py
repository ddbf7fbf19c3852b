from __future__ import annotations

from functools import partial

import pytest

from supervisor.loop.loop import Loop
from supervisor.varlink.connection import SHARE, Turns
from tests.unit.waiting import checked_loop, turn


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_in_order_and_not_at_once() -> None:
    done: list[int] = []
    with checked_loop() as loop:
        turns = Turns(loop)
        for number in range(10):
            turns.add(partial(done.append, number))
        assert done == []
        turn(loop)
        assert done == list(range(10))
        turns.add(partial(done.append, 10))
        turn(loop)
        assert done[-1] == 10


def test_what_takes_long_leaves_room_for_others() -> None:
    clock = Clock()
    done: list[str] = []
    loop = Loop(on_error=lambda error: pytest.fail(repr(error)), clock=clock)
    turns = Turns(loop)

    def act(name: str) -> None:
        done.append(name)
        clock.now += SHARE

    for name in ("a", "b", "c"):
        turns.add(partial(act, name))
    loop.call_soon(partial(done.append, "other"))
    turn(loop, 4)
    assert done == ["a", "other", "b", "c"]
    loop.close()


def test_what_is_added_meanwhile_has_its_turn_behind_the_others() -> None:
    done: list[int] = []
    with checked_loop() as loop:
        turns = Turns(loop)

        def again() -> None:
            done.append(1)
            if len(done) < 6:
                turns.add(again)

        turns.add(again)
        turns.add(partial(done.append, 2))
        turn(loop)
        assert done == [1, 2, 1, 1, 1, 1]


def test_an_error_stops_nobody_else() -> None:
    errors: list[BaseException] = []
    done: list[int] = []
    loop = Loop(on_error=errors.append)
    turns = Turns(loop)
    turns.add(lambda: done.append(1 // 0))
    turns.add(partial(done.append, 2))
    turn(loop, 2)
    assert done == [2]
    assert [type(error) for error in errors] == [ZeroDivisionError]
    loop.close()
