from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from supervisor.loop.loop import Loop
from tests.unit.waiting import DEADLINE, checked_loop, child_process, run_until, turn, wait_readable
from workers.accessory.enter.terminal import SIZE, Copy

TEXT = os.urandom(1 << 20)


class Pair:
    """A pipe to be copied from, and one to be copied to; what the copy has told."""

    def __init__(self, loop: Loop) -> None:
        self.source, self.give = os.pipe2(os.O_NONBLOCK)
        self.take, self.target = os.pipe2(os.O_NONBLOCK)
        self.ended = False
        self.copy = Copy(loop, self.source, self.target, self._end)

    def _end(self) -> None:
        self.ended = True

    def close(self) -> None:
        for fd in (self.source, self.give, self.take, self.target):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as loop:
        yield loop


@pytest.fixture
def pair(loop: Loop) -> Iterator[Pair]:
    pair = Pair(loop)
    yield pair
    pair.close()


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def test_what_nobody_takes_is_not_read_on(loop: Loop, pair: Pair) -> None:
    pair.copy.start()
    given, taken = 0, b""
    while len(taken) < len(TEXT):
        try:
            given += os.write(pair.give, TEXT[given : given + SIZE])
        except BlockingIOError:
            taken += read(pair.take)
        turn(loop)
        if given == len(TEXT):
            taken += read(pair.take)
    assert taken == TEXT


def test_a_stop_keeps_what_was_read(loop: Loop, pair: Pair) -> None:
    pair.copy.start()
    os.write(pair.give, b"one")
    run_until(loop, lambda: read(pair.take) == b"one")
    pair.copy.stop()
    os.write(pair.give, b"two")
    turn(loop, 3)
    assert read(pair.take) == b""
    pair.copy.finish(1.0, SIZE)
    assert read(pair.take) == b"two"


def test_the_end_does_not_wait_for_those_who_go_on_writing(pair: Pair) -> None:
    def write_for_ever() -> None:
        os.set_blocking(pair.give, True)
        while True:
            os.write(pair.give, b"x" * SIZE)

    def read_for_ever() -> None:
        os.set_blocking(pair.take, True)
        while os.read(pair.take, SIZE):
            pass

    with child_process(write_for_ever), child_process(read_for_ever):
        wait_readable(pair.source)
        pair.copy.finish(DEADLINE, 16 * SIZE)


def test_the_end_does_not_wait_for_those_who_do_not_read(pair: Pair) -> None:
    with suppress(BlockingIOError):
        while os.write(pair.target, b"x" * SIZE):
            pass
    os.write(pair.give, b"x")
    pair.copy.finish(0.0, SIZE)


@pytest.mark.parametrize("end", ["give", "take"])
def test_an_end_is_told_once(loop: Loop, pair: Pair, end: str) -> None:
    pair.copy.start()
    if end == "take":
        os.write(pair.give, b"x")
    os.close(getattr(pair, end))
    setattr(pair, end, -1)
    run_until(loop, lambda: pair.ended)
    turn(loop, 3)
    pair.copy.finish(1.0, SIZE)
