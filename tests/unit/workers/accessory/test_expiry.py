"""Hearing of ends, and expiry: on a loop, with entries that nobody else knows."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.loop.loop import Loop
from tests.unit.loop.clock import Clock
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import checked_loop, run_until, turn
from tests.unit.workers.accessory.entries import entry as make_entry
from workers.accessory.entry import Entry
from workers.accessory.expiry import NAMES_AT_ONCE, Expiry, HangupWatch
from workers.accessory.new_namespaces import NamespaceMaker


def entry(id: int, touched: float = 0.0) -> Entry:
    return make_entry(id, f"n{id}", touched)


class Heard:
    """The reported events: pairs of entry and descriptor, entries whose init has ended."""

    def __init__(self, loop: Loop) -> None:
        self.leases: list[tuple[Entry, int]] = []
        self.inits: list[Entry] = []
        self.hangups = HangupWatch(loop, lambda entry, fd: self.leases.append((entry, fd)), self.inits.append)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as loop:
        yield loop


def test_the_end_of_a_lease_is_heard_once(loop: Loop) -> None:
    heard, one, other = Heard(loop), entry(1), entry(2)
    pipes = [os.pipe() for _ in range(3)]
    for (read_end, _), owner in zip(pipes, (one, one, other), strict=True):
        heard.hangups.watch_lease(owner, read_end)
    os.write(pipes[0][1], b"what is written to a lease is nothing")
    turn(loop, 3)
    assert heard.leases == []
    os.close(pipes[1][1])
    os.close(pipes[2][1])
    run_until(loop, lambda: len(heard.leases) == 2)
    turn(loop, 3)
    assert sorted((owner.id, fd) for owner, fd in heard.leases) == [(1, pipes[1][0]), (2, pipes[2][0])]
    heard.hangups.unwatch_lease(pipes[0][0])
    heard.hangups.unwatch_lease(pipes[0][0])
    for fd in (pipes[0][1], *(read_end for read_end, _ in pipes)):
        os.close(fd)


@needs_root
def test_the_end_of_an_init_is_heard_and_one_that_is_to_end_is_reaped(loop: Loop) -> None:
    heard, maker, owner = Heard(loop), NamespaceMaker(), entry(1)
    watched, ended = maker.make_pid("watched"), maker.make_pid("ended")
    heard.hangups.watch_init(owner, watched)
    heard.hangups.end(ended)
    watched.kill()
    run_until(loop, lambda: heard.inits)
    run_until(loop, lambda: not os.path.exists(f"/proc/{ended.pid}"))
    assert heard.inits == [owner]
    watched.wait()
    watched.close()
    maker.close()


class World:
    """An expiry of ten seconds, on a clock that stands still."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.now = 0.0
        self.errors: list[BaseException] = []
        self.loop = Loop(on_error=self.errors.append, clock=self.clock)
        self.expired: list[int] = []
        self.expiry = Expiry(self.loop, 10.0, lambda entry: self.expired.append(entry.id))

    def at(self, now: float) -> list[int]:
        """Those that have expired by then."""
        self.clock.now = now
        turn(self.loop, 3)
        return self.expired


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()
    assert not world.errors


def test_each_expires_when_it_is_due(world: World) -> None:
    for number, touched in ((1, 0.0), (2, 5.0), (3, 2.0)):
        world.expiry.wait(entry(number, touched))
    assert world.at(9.9) == []
    assert world.at(10.0) == [1]
    assert world.at(12.0) == [1, 3]
    assert world.at(99.0) == [1, 3, 2]


def test_one_that_was_touched_meanwhile_waits_on(world: World) -> None:
    one = entry(1)
    world.expiry.wait(one)
    world.expiry.wait(one)  # once is enough
    one.touched = 8.0
    assert world.at(17.9) == []
    assert world.expiry.left(one) == pytest.approx(0.1)
    assert world.at(18.0) == [1]
    assert world.at(99.0) == [1]


def test_one_that_is_leased_is_not_looked_at_any_more(world: World) -> None:
    leased = entry(1)
    world.expiry.wait(leased)
    leased.add_lease(3)
    assert world.at(50.0) == []
    leased.end_lease(3)
    leased.touched = 50.0
    world.expiry.wait(leased)
    assert world.at(60.0) == [1]


def test_many_at_once_leave_turns_to_others(world: World) -> None:
    for number in range(NAMES_AT_ONCE + 5):
        world.expiry.wait(entry(number))
    world.clock.now = 10.0
    turn(world.loop)
    assert len(world.expired) == NAMES_AT_ONCE
    assert len(world.at(10.0)) == NAMES_AT_ONCE + 5


def test_a_stop_of_the_worker_counts_for_nobody_s_expiry(world: World) -> None:
    """Those who would have asked for a name could not."""
    world.loop.call_soon(lambda: None)
    for number, touched in ((1, 0.0), (2, 5.0)):
        world.expiry.wait(entry(number, touched))
    world.clock.now = 100.0
    world.loop.call_soon(lambda: None)
    world.loop._once()
    assert world.expired == []
    assert world.at(109.9) == []
    assert world.at(110.0) == [1]
    assert world.at(115.0) == [1, 2]
