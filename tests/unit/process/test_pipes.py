"""Reading ends of pipes, whose other ends services have."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from supervisor.linux.pipe_call import SLOW, PipeCall, start_read
from supervisor.loop.loop import Loop
from supervisor.process import pipes
from supervisor.process.pipes import MOST_HELD, MOST_KILLED, REST, Pipes
from tests import fuse, held_pipe, withdrawn_page
from tests.unit.closing import PatientCloser
from tests.unit.killed_call import killed_call
from tests.unit.loop.clock import Clock
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import DEADLINE, turn

needs_faults = pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")


needs_fuse = pytest.mark.skipif(not fuse.is_possible(), reason="needs root and FUSE")


class World:
    """A loop that ends once `enough` holds, and what has come from pipes."""

    def __init__(self) -> None:
        self.loop = Loop(on_error=lambda error: pytest.fail(str(error)))
        self.closer = PatientCloser()
        self.pipes = Pipes(self.loop, self.closer)
        self.found: dict[int, bytes] = {}

    def watched(self, name: str = "s") -> tuple[int, int]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.pipes.watch(read_end, name, lambda: self.read(read_end))
        return read_end, write_end

    def read(self, fd: int) -> None:
        try:
            while data := self.pipes.read(fd, 100):
                self.found[fd] = self.found.get(fd, b"") + data
        except BlockingIOError:
            return
        self.pipes.close(fd)

    def run(self, enough: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE

        def look() -> None:
            if enough():
                self.loop.stop()
            else:
                assert time.monotonic() < end
                self.loop.call_later(0.01, look)

        self.loop.call_soon(look)
        self.loop.run()


@pytest.fixture
def world() -> Iterator[World]:
    before = open_numbers()
    world = World()
    yield world
    world.loop.close()
    assert open_numbers() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL


def test_what_comes_is_read_until_the_end(world: World) -> None:
    fd, write_end = world.watched()
    os.write(write_end, b"one")
    world.run(lambda: world.found.get(fd) == b"one")
    os.write(write_end, b" two")
    os.close(write_end)
    world.run(lambda: fd not in open_numbers())
    assert world.found[fd] == b"one two"
    assert not world.closer.reaper.started, "nobody could have it locked"


def test_a_pipe_that_others_write_to_is_closed_by_a_child(world: World) -> None:
    fd, write_end = world.watched()
    world.pipes.close(fd)
    assert not world.pipes._held
    with pytest.raises(BrokenPipeError):
        os.write(write_end, b"x")
    os.close(write_end)


def test_one_that_is_kept_for_a_short_time_again_and_again_is_waited_for_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[int] = []

    def slow(fd: int, size: int, milliseconds: int) -> PipeCall:
        patience.append(milliseconds)
        time.sleep(SLOW * 2)
        return start_read(fd, size, milliseconds)

    monkeypatch.setattr(pipes, "start_read", slow)
    fd, write_end = world.watched()
    os.write(write_end, b"x" * 300)
    world.run(lambda: len(world.found.get(fd, b"")) == 300)
    assert patience[0] > 0
    assert set(patience[1:]) == {0}
    os.close(write_end)
    world.run(lambda: fd not in open_numbers())


@pytest.mark.parametrize("slow", [SLOW, -1.0])
def test_a_service_that_writes_all_the_time_has_a_share(monkeypatch: pytest.MonkeyPatch, slow: float) -> None:
    """Also where its children are always late."""
    monkeypatch.setattr(pipes, "SLOW", slow)
    errors: list[BaseException] = []
    clock = Clock()
    loop = Loop(errors.append, clock)
    watched = Pipes(loop, PatientCloser())
    taken: list[float] = []

    def take() -> None:
        with suppress(BlockingIOError):
            watched.read(read_end, 1)
            taken.append(clock.now)
            clock.now += 0.001

    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    watched.watch(read_end, "s", take)
    os.write(write_end, b"junk")
    for number in range(3):
        end = time.monotonic() + DEADLINE
        while len(taken) == number:
            turn(loop)
            assert time.monotonic() < end
        turn(loop, 4)
        clock.now += 0.001 * (REST - 1)
        turn(loop, 4)
        assert len(taken) == number + 1, "it rests"
        clock.now += 0.0011
    watched.close(read_end)
    os.close(write_end)
    loop.close()
    assert not errors


@needs_faults
def test_a_pipe_that_is_kept_keeps_nobody(world: World) -> None:
    (fd, write_end), (other, other_end) = world.watched(), world.watched("t")
    os.write(write_end, b"one")
    with held_pipe.held(write_end):
        world.run(lambda: world.pipes._held["s"])
        os.write(other_end, b"two")
        world.run(lambda: world.found)
        assert world.found == {other: b"two"}
    world.run(lambda: len(world.found) == 2)
    assert world.found[fd] == b"one"
    os.write(write_end, b", more")
    world.run(lambda: world.found[fd] == b"one, more")
    for end in (write_end, other_end):
        os.close(end)
    world.run(lambda: not {fd, other} & open_numbers())


@needs_faults
def test_a_close_of_a_pipe_that_is_kept_is_left_to_its_child(world: World) -> None:
    kept = [world.watched() for _ in range(MOST_HELD)]
    with held_pipe.held(kept[0][1]), held_pipe.held(kept[1][1]):
        for fd, _write_end in kept:
            world.pipes.close(fd)
        assert world.pipes._held["s"] == MOST_HELD
    world.run(lambda: not world.pipes._held)
    for _fd, write_end in kept:
        os.close(write_end)


@needs_faults
def test_a_pipe_that_is_kept_is_closed_later(world: World) -> None:
    fd, write_end = world.watched()
    os.write(write_end, b"one")
    with held_pipe.held(write_end):
        world.run(lambda: world.pipes._held["s"])
        world.pipes.close(fd)
        assert fd in open_numbers()
    world.run(lambda: fd not in open_numbers())
    assert world.found == {}
    os.close(write_end)


@needs_faults
def test_a_service_that_keeps_many_pipes_has_few_children(world: World) -> None:
    made = [world.watched() for _ in range(MOST_HELD + 1)]
    (kept, _end), (last, last_end) = made[0], made[-1]
    for _fd, write_end in made:
        os.write(write_end, b"x")
    with held_pipe.held(made[0][1]), held_pipe.held(made[1][1]):
        world.run(lambda: world.pipes._held["s"] == MOST_HELD)
        world.found.clear()
        os.write(last_end, b"y")
        world.run(lambda: True)
        assert last not in world.found
    world.run(lambda: world.found.get(last, b"").endswith(b"y") and world.found.get(kept) == b"x")
    for _fd, write_end in made:
        os.close(write_end)
    world.run(lambda: not {fd for fd, _ in made} & open_numbers())


@needs_fuse
def test_a_page_that_is_not_given_keeps_nobody(world: World) -> None:
    (fd, write_end), (other, other_end) = world.watched(), world.watched("t")
    turns = 0

    def count_turn() -> None:
        nonlocal turns
        turns += 1

    with withdrawn_page.held(write_end):
        os.close(write_end)
        world.run(lambda: world.pipes._held["s"])
        world.loop.before_wait(count_turn)
        os.write(other_end, b"two")
        world.run(lambda: world.found and turns > 5)
        assert world.found == {other: b"two"}
        assert turns < 20, "the end of the last writer does not wake the loop up again and again"
    os.close(other_end)
    world.run(lambda: not {fd, other} & open_numbers())
    assert fd not in world.found, "the server has ended, and the page with it: that is the end"


def test_what_an_ended_process_has_left_is_read_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its pipe has cost before: a child on a busy machine is late, and the pipe is closed after the read."""
    monkeypatch.setattr(pipes, "SLOW", -1.0)  # so that nobody waits for a child from the second read on
    read_end, write_end = world.watched()
    os.write(write_end, b"a" * 150)
    world.read(read_end)
    with pytest.raises(BlockingIOError):
        world.pipes.read(read_end, 100)
    world.pipes.expect_end(read_end)
    os.write(write_end, b"b" * 200)
    os.close(write_end)
    world.read(read_end)
    assert world.found[read_end] == b"a" * 150 + b"b" * 200
    assert not world.pipes._ends
    world.run(lambda: not world.pipes._held)


def test_last_words_whose_child_is_late_are_read_in_a_later_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the child waits for memory for a moment: spawnd does not, and nothing is lost."""
    done: list[bytes] = []

    def start_late(fd: int, size: int, _milliseconds: int) -> PipeCall:
        call = start_read(fd, size, 0)
        monkeypatch.setattr(call, "has_ended", lambda patience: patience == 0 and PipeCall.has_ended(call, 0))
        return call

    monkeypatch.setattr(pipes, "start_read", start_late)
    read_end, write_end = world.watched()
    os.write(write_end, b"a" * 150 + b"the end")
    os.close(write_end)
    world.pipes.expect_end(read_end)
    world.read(read_end)
    assert not world.found
    assert world.pipes.last_reads((read_end,), lambda: done.append(world.found[read_end]))
    assert not done
    world.run(lambda: done)
    assert done == [b"a" * 150 + b"the end"]
    assert read_end not in open_numbers()


@needs_faults
def test_last_words_behind_a_lock_are_waited_for_as_long_as_the_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "LAST", 0.1)
    done: list[int] = []
    (fd, write_end), (other, other_end) = world.watched(), world.watched("t")
    os.write(write_end, b"one")
    with held_pipe.held(write_end):
        world.run(lambda: world.pipes._held["s"])
        world.pipes.expect_end(fd)
        world.read(fd)
        assert world.pipes.last_reads((fd, other), lambda: done.append(fd))
        os.write(other_end, b"two")
        world.run(lambda: done and world.found)
        assert world.found == {other: b"two"}
        world.pipes.close(fd)
    for each in (write_end, other_end):
        os.close(each)
    world.run(lambda: not {fd, other} & open_numbers())
    assert done == [fd]


def test_without_a_late_child_there_is_nothing_to_wait_for(world: World) -> None:
    fd, write_end = world.watched()
    world.pipes.expect_end(fd)
    world.read(fd)
    assert not world.pipes.last_reads((fd, -1), lambda: pytest.fail("there was nothing to wait for"))
    os.close(write_end)
    world.run(lambda: fd not in open_numbers())


@pytest.mark.parametrize("times", [1, MOST_KILLED])
def test_the_last_words_are_read_although_children_are_killed(
    world: World, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    left = times

    def start(fd: int, size: int, milliseconds: int) -> PipeCall:
        nonlocal left
        left -= 1
        return killed_call() if left >= 0 else start_read(fd, size, milliseconds)

    read_end, write_end = world.watched()
    os.write(write_end, b"last words")
    os.close(write_end)
    world.pipes.expect_end(read_end)
    monkeypatch.setattr(pipes, "start_read", start)
    world.read(read_end)
    assert world.found == {read_end: b"last words"}
    assert not world.pipes._ends


def test_nobody_is_kept_where_each_child_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = world.watched()
    os.write(write_end, b"last words")
    world.pipes.expect_end(read_end)
    monkeypatch.setattr(pipes, "start_read", lambda _fd, _size, _milliseconds: killed_call())
    with pytest.raises(BlockingIOError):
        world.pipes.read(read_end, 100)
    monkeypatch.undo()
    os.close(write_end)
    world.run(lambda: world.found == {read_end: b"last words"})
    world.run(lambda: read_end not in open_numbers())
