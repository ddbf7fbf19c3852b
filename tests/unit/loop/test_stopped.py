"""A loop that was stopped, or whose machine was suspended: input comes first, and time limits move."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from supervisor.loop.loop import FAR, MAX_EVENTS, UNCERTAIN, Loop
from tests.unit.loop.clock import Clock
from tests.unit.waiting import turn


class Bench:
    """A loop by two clocks of the test's own, and what has rung, with its time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.boot_clock = Clock()
        self.errors: list[BaseException] = []
        self.granted: list[float] = []
        self.rung: list[tuple[str, float]] = []
        self.loop = Loop(self.errors.append, self.clock, self.boot_clock)
        self.loop.on_grace(self.granted.append)
        turn(self.loop)

    def ring(self, name: str) -> None:
        self.rung.append((name, self.clock.now))

    def come_back(self, seconds: float, suspended: float = 0.0) -> None:
        """One turn, which comes back from its wait after this time; `run` would take it for a first one."""
        self.clock.now += seconds
        self.boot_clock.now += seconds + suspended
        self.loop.call_soon(lambda: None)  # it does not wait
        self.loop._once()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.close()
    assert not bench.errors


def test_a_timer_is_judged_after_all_input_that_had_come(bench: Bench) -> None:
    """Also where there is more of it than one wait tells."""
    pipes = [os.pipe() for _ in range(3 * MAX_EVENTS + 5)]
    heard: list[int] = []
    try:
        for number, (read_end, write_end) in enumerate(pipes):
            os.write(write_end, b"x")
            bench.loop.watch(read_end, select.EPOLLIN, lambda _events, number=number: heard.append(number))  # type: ignore[misc]
        bench.loop.call_later(0.5, lambda: bench.rung.append(("timer", len(set(heard)))))
        bench.come_back(0.5)
        assert bench.rung == [("timer", len(pipes))]
    finally:
        for read_end, write_end in pipes:
            os.close(read_end)
            os.close(write_end)


def test_input_that_comes_while_a_callback_runs_is_heard_before_a_timer(bench: Bench) -> None:
    (first_read, first_write), (read_end, write_end) = os.pipe(), os.pipe()
    heard: list[bytes] = []

    def slow(_events: int) -> None:
        os.read(first_read, 1)
        os.write(write_end, b"alive")
        bench.clock.now += 0.9

    try:
        bench.loop.watch(first_read, select.EPOLLIN, slow)
        bench.loop.watch(read_end, select.EPOLLIN, lambda _events: heard.append(os.read(read_end, 5)))
        bench.loop.call_later(0.5, lambda: bench.rung.append(("timer", len(heard))))
        os.write(first_write, b"x")
        bench.come_back(0.0)
        assert bench.rung == [("timer", 1)]
    finally:
        for fd in (first_read, first_write, read_end, write_end):
            os.close(fd)


def test_what_floods_does_not_keep_timers_from_ringing(bench: Bench) -> None:
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, b"x")
        calls: list[int] = []
        bench.loop.watch(read_end, select.EPOLLIN, calls.append)
        bench.loop.call_later(0.5, lambda: bench.ring("timer"))
        bench.come_back(0.5)
        assert bench.rung
        assert len(calls) == 2  # with the wait, and before the timer
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_stop_moves_the_time_limits_of_others_and_nothing_else(bench: Bench) -> None:
    bench.loop.limit_later(5, lambda: bench.ring("overdue"))
    bench.loop.limit_later(40, lambda: bench.ring("later"))
    bench.loop.call_later(5, lambda: bench.ring("own"))
    bench.come_back(25)
    assert bench.granted == [25.0]  # 20 s late, and the stop may have begun with the wait
    assert bench.rung == [("own", 1025.0)]
    bench.come_back(4.9)
    assert len(bench.rung) == 1
    bench.come_back(0.1)
    assert bench.rung[1:] == [("overdue", 1030.0)]
    bench.come_back(34.9)
    assert len(bench.rung) == 2
    bench.come_back(0.1)
    assert bench.rung[2:] == [("later", 1065.0)]
    assert bench.granted == [25.0]


def test_what_is_overdue_gets_a_moment_at_least_and_a_minute_at_most(bench: Bench) -> None:
    bench.loop.limit_later(0.01, lambda: bench.ring("soon"))
    bench.come_back(100)
    assert bench.granted == [pytest.approx(99.99 + FAR)]
    assert not bench.rung
    bench.come_back(FAR)
    assert [name for name, _at in bench.rung] == ["soon"]
    bench.loop.limit_later(86400, lambda: bench.ring("day"))
    bench.come_back(86400 + 2)
    assert bench.granted[1:] == [pytest.approx(2 + UNCERTAIN)]


def test_a_loop_that_is_a_little_late_moves_nothing(bench: Bench) -> None:
    bench.loop.limit_later(5, lambda: bench.ring("limit"))
    bench.come_back(5 + 0.9 * FAR)
    assert bench.granted == []
    assert bench.rung


def test_a_suspend_moves_them_though_the_clock_stood_still(bench: Bench) -> None:
    bench.loop.limit_later(5, lambda: bench.ring("limit"))
    bench.come_back(2, suspended=8 * 3600.0)
    assert bench.granted == [2.0]
    bench.come_back(4.9)
    assert not bench.rung
    bench.come_back(0.1)
    assert bench.rung == [("limit", 1007.0)]


def test_a_limit_that_moves_can_be_cancelled(bench: Bench) -> None:
    timer = bench.loop.limit_later(5, lambda: bench.ring("limit"))
    bench.come_back(20)
    timer.cancel()
    bench.come_back(100)
    assert not bench.rung
    assert bench.loop._cancelled == 0
    assert bench.loop._timers == []


def test_a_turn_without_timers_looks_at_one_clock_once() -> None:
    """Most turns of a worker that answers requests; each look costs a request some percent."""
    looks: list[str] = []

    def clock(name: str) -> float:
        looks.append(name)
        return 1000.0

    loop = Loop(lambda _error: None, lambda: clock("monotonic"), lambda: clock("boot"))
    try:
        loop.call_soon(looks.clear)  # it does not wait
        loop._once()
        loop.call_soon(lambda: None)
        loop._once()
        assert looks == ["boot"]
    finally:
        loop.close()
