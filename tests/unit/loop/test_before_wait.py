"""Work that is done once at the end of every turn."""

from __future__ import annotations

import os
import select

from supervisor.loop.loop import Loop
from tests.unit.process.forked import in_child
from tests.unit.waiting import run_until, turn


def test_it_comes_after_all_that_happened_in_a_turn(loop: Loop) -> None:
    told: list[str] = []
    read_end, write_end = os.pipe()
    os.write(write_end, b"!")
    loop.watch(read_end, select.EPOLLIN, lambda _events: told.append("read" if os.read(read_end, 1) else ""))
    loop.call_later(0, lambda: told.append("timer"))
    loop.before_wait(lambda: told.append("end"))
    turn(loop)
    assert sorted(told[:-1]) == ["read", "timer"]
    assert told[-1] == "end"
    loop.unwatch(read_end)
    os.close(read_end)
    os.close(write_end)


def test_it_comes_in_every_turn_also_in_the_last(loop: Loop) -> None:
    told: list[None] = []
    loop.before_wait(lambda: told.append(None))
    turn(loop, 3)
    assert len(told) == 3


def test_what_it_asks_for_is_not_waited_with(loop: Loop) -> None:
    """It runs before the wait, so what it puts off keeps the loop from sleeping."""
    told: list[str] = []

    def once() -> None:
        loop.before_wait(lambda: None)
        loop.call_soon(lambda: told.append("soon"))

    loop.before_wait(once)
    run_until(loop, lambda: told)
    assert told == ["soon"]


def test_an_exception_in_it_ends_nothing() -> None:
    def check() -> tuple[list[str], int]:
        errors: list[BaseException] = []
        loop = Loop(on_error=errors.append)
        turns: list[None] = []

        def fails() -> None:
            turns.append(None)
            raise ValueError("mine")

        loop.before_wait(fails)
        turn(loop, 2)
        return [str(error) for error in errors], len(turns)

    assert in_child(check) == (["mine", "mine"], 2)
