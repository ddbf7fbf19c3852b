"""Timers, by a clock of the test's own."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.loop.loop import COMPACT_AT, Loop, Timer
from tests.unit.loop.clock import Clock
from tests.unit.waiting import run_until, turn

Errors = list[BaseException]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def errors() -> Errors:
    return []


@pytest.fixture
def timed(clock: Clock, errors: Errors) -> Iterator[Loop]:
    loop = Loop(on_error=errors.append, clock=clock)
    yield loop
    loop.close()


def test_a_timer_rings_when_its_time_has_come_and_once(timed: Loop, clock: Clock) -> None:
    rung: list[float] = []
    timed.call_later(2.5, lambda: rung.append(clock.now))
    turn(timed)
    clock.now += 2.4
    turn(timed)
    assert rung == []
    clock.now += 0.1
    turn(timed, 3)
    assert rung == [1002.5]


def test_a_time_that_has_passed_rings_in_the_next_turn(timed: Loop, clock: Clock) -> None:
    rung: list[str] = []
    timed.call_at(clock.now - 5, lambda: rung.append("late"))
    turn(timed)
    assert rung == ["late"]


@given(delays=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), max_size=30), cancelled=st.sets(st.integers(0, 29)))
@settings(max_examples=50, deadline=None)
def test_they_ring_in_the_order_of_their_times_then_of_their_setting(delays: list[float], cancelled: set[int]) -> None:
    errors: Errors = []
    clock = Clock()
    loop = Loop(on_error=errors.append, clock=clock)
    try:
        rung: list[int] = []
        timers = [loop.call_later(delay, lambda i=i: rung.append(i)) for i, delay in enumerate(delays)]  # type: ignore[misc]
        for index in cancelled:
            if index < len(timers):
                timers[index].cancel()
        clock.now += 3
        turn(loop)
    finally:
        loop.close()
    left = [index for index in range(len(delays)) if index not in cancelled]
    assert rung == sorted(left, key=lambda index: (delays[index], index))
    assert not errors


def test_a_cancelled_one_never_rings_and_may_be_cancelled_again(timed: Loop, clock: Clock) -> None:
    rung: list[str] = []
    timer = timed.call_later(1, lambda: rung.append("no"))
    timer.cancel()
    timer.cancel()
    clock.now += 2
    turn(timed)
    timer.cancel()
    assert rung == []


def test_one_can_cancel_another_that_is_due_in_the_same_moment(timed: Loop, clock: Clock) -> None:
    rung: list[str] = []
    timers: list[Timer] = []
    timed.call_later(1, lambda: timers[0].cancel())
    timers.append(timed.call_later(1, lambda: rung.append("no")))
    clock.now += 1
    turn(timed)
    assert rung == []


def test_one_that_cancels_itself_while_it_rings_does_no_harm(timed: Loop, clock: Clock) -> None:
    timers: list[Timer] = []
    rung: list[str] = []
    timers.append(timed.call_later(1, lambda: timers[0].cancel()))
    timed.call_later(2, lambda: rung.append("second"))
    clock.now += 2
    turn(timed)
    assert rung == ["second"]


def test_cancelled_timers_do_not_pile_up(timed: Loop, clock: Clock) -> None:
    """A service that is started and stopped for ever must cost no memory."""
    rung: list[int] = []
    kept = [timed.call_later(delay, lambda d=delay: rung.append(d)) for delay in (3, 1, 2)]  # type: ignore[misc]
    for _ in range(20 * COMPACT_AT):
        timed.call_later(60, lambda: rung.append(0)).cancel()
    assert len(timed._timers) <= COMPACT_AT + len(kept) + 1
    assert timed._cancelled == len(timed._timers) - len(kept)
    clock.now += 100
    turn(timed)
    assert rung == [1, 2, 3]
    assert timed._timers == []


def test_the_count_of_cancelled_ones_stays_right(timed: Loop, clock: Clock) -> None:
    source = random.Random(4)
    live: list[Timer] = []
    for _ in range(5000):
        match source.randrange(4):
            case 0 | 1:
                live.append(timed.call_later(source.random(), lambda: None))
            case 2:
                if live:
                    live.pop(source.randrange(len(live))).cancel()
            case 3:
                clock.now += source.random() / 20
                turn(timed)
        assert timed._cancelled == sum(entry[2].callback is None for entry in timed._timers)


def test_one_that_sets_itself_anew_for_now_lets_the_others_have_their_turn(timed: Loop, clock: Clock) -> None:
    read_end, write_end = os.pipe()
    heard: list[bytes] = []
    rung: list[None] = []

    def again() -> None:
        rung.append(None)
        if len(rung) > 100:
            raise AssertionError("nobody else is heard")
        timed.call_at(clock.now - 1, again)

    try:
        os.write(write_end, b"x")
        timed.watch(read_end, select.EPOLLIN, lambda _events: heard.append(os.read(read_end, 1)))
        timed.call_later(0, again)
        turn(timed, 3)
        assert heard == [b"x"]
        assert 1 <= len(rung) <= 3
    finally:
        os.close(read_end)
        os.close(write_end)


def test_an_exception_is_handed_over_and_the_others_ring(timed: Loop, clock: Clock, errors: Errors) -> None:
    rung: list[str] = []

    def fails() -> None:
        raise KeyError("mine")

    timed.call_later(1, fails)
    timed.call_later(1, lambda: rung.append("after"))
    clock.now += 1
    turn(timed)
    assert rung == ["after"]
    assert [repr(error) for error in errors] == ["KeyError('mine')"]


def test_what_is_no_error_of_a_callback_ends_the_loop(timed: Loop) -> None:
    def leaves() -> None:
        raise SystemExit(3)

    timed.call_soon(leaves)
    with pytest.raises(SystemExit):
        timed.run()


def test_one_call_soon_an_iteration(timed: Loop, clock: Clock) -> None:
    order: list[str] = []

    def rings() -> None:
        order.append("timer")
        if order.count("timer") < 3:
            timed.call_later(0, rings)

    for number in range(3):
        timed.call_soon(lambda n=number: order.append(f"soon {n}"))  # type: ignore[misc]
    timed.call_later(0, rings)
    timed.call_soon(timed.stop)
    timed.run()
    assert order == ["timer", "soon 0", "timer", "soon 1", "timer", "soon 2"]


def test_with_the_real_clock_it_waits_and_never_rings_early(loop: Loop) -> None:
    rung: list[float] = []
    start = loop.clock()
    loop.call_later(0.0305, lambda: rung.append(loop.clock() - start))
    loop.call_later(0.0305, loop.stop)
    loop.run()
    assert rung[0] >= 0.0305


def test_stop_takes_effect_after_the_turn_and_the_loop_can_run_again(loop: Loop) -> None:
    rung: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: rung.append("next turn"))
    loop.run()
    assert rung == []
    run_until(loop, lambda: rung)


def test_close_gives_all_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        loop = Loop(on_error=lambda _error: None)
        loop.close()
    assert set(os.listdir("/proc/self/fd")) == before
