"""Children that answer over a pipe, in time or not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from supervisor.process.answering_child import AnsweringChild
from supervisor.process.children import Children
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.waiting import checked_loop, run_until


def ask(answer: Callable[[int], object], limit: float = 20) -> list[tuple[bytes, bool]]:
    """What is told of a child, once it is reaped."""
    found: list[tuple[bytes, bool]] = []
    with checked_loop() as loop:
        children = Children(lambda _pid, _exit: None)
        loop.on_signal(signal.SIGCHLD, children.reap)
        AnsweringChild(loop, children, answer, limit, lambda data, in_time: found.append((data, in_time)))
        run_until(loop, lambda: found and not Children.any_left())
    return found


def test_its_answer_comes_in_time() -> None:
    assert in_child(lambda: ask(lambda fd: os.write(fd, b"x" * 100_000))) == [(b"x" * 100_000, True)]


def test_it_has_no_descriptor_but_the_pipe() -> None:
    def answer(fd: int) -> None:
        os.write(fd, str(open_numbers() == {fd}).encode())

    assert in_child(lambda: ask(answer)) == [(b"True", True)]


def test_a_late_child_is_killed() -> None:
    def answer(fd: int) -> None:
        os.write(fd, b"some")
        signal.pause()

    assert in_child(lambda: ask(answer, 0.1)) == [(b"some", False)]


def test_a_child_that_dies_has_answered() -> None:
    assert in_child(lambda: ask(lambda _fd: signal.raise_signal(signal.SIGKILL))) == [(b"", True)]
