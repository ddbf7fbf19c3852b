"""Functions in short-lived children."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.errors import SpawnError
from supervisor.loop.loop import Loop
from tests.daemon import children
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop, run_until, wait_readable, wait_until
from workers.netns.forked_task import ForkedTask, Outcome, WithDescriptor


@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as found:
        yield found


def outcome(loop: Loop, function: Callable[[], Any], limit: float = 20.0) -> Outcome:
    found: list[Outcome] = []
    ForkedTask(loop, "the task", function, limit, found.append)
    run_until(loop, lambda: found)
    return found[0]


@pytest.mark.parametrize("value", [None, 5, "text", {"a": [1, (2, 3)]}])
def test_a_value_comes_back(loop: Loop, value: object) -> None:
    before = open_numbers()
    found = outcome(loop, lambda: value)
    assert (found.value, found.problem, found.fd) == (value, "", -1)
    assert open_numbers() == before


def test_a_descriptor_comes_back(loop: Loop) -> None:
    def make() -> WithDescriptor:
        read_end, write_end = os.pipe()
        os.write(write_end, b"hello")
        return WithDescriptor("value", read_end)

    found = outcome(loop, make)
    assert (found.value, os.read(found.fd, 9), os.get_inheritable(found.fd)) == ("value", b"hello", False)
    os.close(found.fd)


def execute(path: str) -> None:
    os.execv(path, [path])  # noqa: S606


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda: fail(SpawnError("cannot do it: too late")), "cannot do it: too late"),
        (lambda: fail(FileNotFoundError(2, "No such file", "/a")), "the task: /a: No such file"),
        (lambda: os._exit(3), "the task exited with status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the task was killed by KILL"),
        (lambda: execute("/bin/false"), "the task exited with status 1"),
        (lambda: execute("/bin/true"), ""),
    ],
)
def test_why_there_is_no_value(loop: Loop, function: Callable[[], Any], problem: str) -> None:
    assert outcome(loop, function).problem == problem


def test_what_nobody_expected_is_a_problem(loop: Loop) -> None:
    assert outcome(loop, lambda: fail(KeyError("a"))).problem == "unexpected error: KeyError: 'a'"


def hang(write_end: int) -> None:
    """Have a child that hangs as well, and would live on."""
    if os.fork() == 0:
        os.write(write_end, b"x")
    signal.pause()


def test_what_takes_too_long_is_killed_with_what_it_has_started(loop: Loop) -> None:
    read_end, write_end = os.pipe()
    found = outcome(loop, lambda: hang(write_end), 0.3)
    assert found.problem == "the task took longer than 0.3 s"
    os.close(write_end)
    wait_readable(read_end)
    while os.read(read_end, 9):  # its end is that of everybody who had the other end
        pass
    os.close(read_end)


def work_for(seconds: float) -> float:
    """Use that much of the processor, and sleep as long in between."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        time.sleep(0.02)
    return seconds


def test_one_that_gets_on_is_given_the_time_that_it_takes(loop: Loop) -> None:
    found: list[Outcome] = []
    slow: list[bool] = []
    ForkedTask(loop, "the task", lambda: work_for(1.0), 1.5, found.append, lambda: slow.append(True))
    run_until(loop, lambda: found)
    assert (found[0].value, found[0].problem) == (1.0, "")
    assert slow


@pytest.mark.parametrize("function", [signal.pause, lambda: work_for(20.0)])
def test_one_that_hangs_or_goes_on_for_ever_is_not(loop: Loop, function: Callable[[], Any]) -> None:
    found: list[Outcome] = []
    ForkedTask(loop, "the task", function, 0.3, found.append, lambda: None)
    run_until(loop, lambda: found)
    assert found[0].problem == "the task took longer than 0.3 s"


def test_one_that_is_stopped_says_nothing(loop: Loop) -> None:
    before, others = open_numbers(), children(os.getpid())
    found: list[Outcome] = []
    task = ForkedTask(loop, "the task", signal.pause, 20.0, found.append)
    assert children(os.getpid()) != others
    task.stop()
    assert open_numbers() == before
    assert found == []
    assert children(os.getpid()) == others


def test_it_ends_with_the_worker() -> None:
    read_end, write_end = os.pipe()

    def worker() -> None:
        with checked_loop() as loop:
            ForkedTask(loop, "the task", signal.pause, 20.0, lambda _outcome: None)
            os.write(write_end, b"x")
            signal.pause()

    pid = os.fork()
    if pid == 0:
        try:
            worker()
        finally:
            os._exit(1)
    wait_readable(read_end)
    os.read(read_end, 1)
    os.close(write_end)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until(lambda: os.read(read_end, 1) == b"")
    os.close(read_end)
