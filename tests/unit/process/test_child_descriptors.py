"""Real descriptors at random numbers, shuffled in a forked process: what comes out, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.process.child_descriptors import arrange, close_others, gaps, plan
from supervisor.process.failure import ErrorPipe, read_failure
from supervisor.process.launch import Launch, Source
from tests.unit.process.forked import open_numbers, read_all

AWAY = 1000  # where the test keeps things that must not be in the way
NULL = os.stat("/dev/null")


def launch(*sources: Source, ready: tuple[int, int] | None = None, error_fd: int = 99) -> Launch:
    stdin, stdout, stderr, *fds = sources
    return Launch(
        argv=(),
        env={},
        service=Service("test"),
        stdio=(stdin, stdout, stderr),
        fds=tuple((f"fd{n}", source) for n, source in enumerate(fds)),
        ready=ready,
        error_fd=error_fd,
        nofile_soft=1024,
        is_root=False,
    )


def shuffled(launch: Launch, limit: int = 4 * AWAY) -> dict[str, Any]:
    """Return the descriptors of a process by number after `arrange` under a limit, with those from before."""
    sources = {source for _, source in plan(launch).targets if isinstance(source, int)}
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        pipe = ErrorPipe(write_end)
        try:
            high = fcntl.fcntl(write_end, fcntl.F_DUPFD, 2 * AWAY)
            close_range(0, 2 * AWAY - 1)
            before = {}
            for number in sources:
                fd = os.memfd_create("test")
                before[number] = os.fstat(fd).st_ino
                fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, AWAY + number)
                os.close(fd)
            for number in sources:
                os.dup2(AWAY + number, number, inheritable=False)
            pipe.fd = os.dup2(high, launch.error_fd, inheritable=False)
            close_range(AWAY, LAST_DESCRIPTOR)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            arrange(plan(launch), pipe)
            after = {number: os.fstat(number) for number in open_numbers()}
            message = {
                "before": before,
                "after": {number: status.st_ino for number, status in after.items()},
                "inheritable": [number for number in after if os.get_inheritable(number)],
                "pipe": pipe.fd,
            }
            os.write(pipe.fd, json.dumps(message).encode())
        except BaseException as error:
            pipe.report(error)
        os._exit(0)
    os.close(write_end)
    message = json.loads(read_all(read_end))
    os.waitpid(pid, 0)
    assert "before" in message, message
    return message  # type: ignore[no-any-return]


@st.composite
def launches(draw: st.DrawFn) -> Launch:
    """Tables of up to a few hundred, their sources anywhere: in the way, above, one in two places, /dev/null."""
    number = st.integers(0, 40) | st.integers(0, 400)
    source = number | st.just("/dev/null")
    sources = draw(st.lists(source, min_size=3, max_size=20) | st.lists(source, min_size=200, max_size=260))
    ready = None
    if draw(st.booleans()):
        ready = (len(sources) + draw(st.integers(0, 10)), draw(number))
    used = {source for source in sources if isinstance(source, int)} | ({ready[1]} if ready else set())
    error_fd = draw(number.filter(lambda number: number not in used))
    return launch(*sources, ready=ready, error_fd=error_fd)


@settings(max_examples=150, deadline=None, database=None)
@given(launches())
def test_every_table_comes_out_right(launch: Launch) -> None:
    seen = shuffled(launch)
    targets = dict(plan(launch).targets)
    error_target = plan(launch).error_target
    assert {int(number) for number in seen["after"]} == {*targets, error_target}
    assert sorted(seen["inheritable"]) == sorted(targets)
    assert seen["pipe"] == error_target == max(targets) + 1
    for target, source in targets.items():
        expected = NULL.st_ino if isinstance(source, str) else seen["before"][str(source)]
        assert seen["after"][str(target)] == expected


@pytest.mark.parametrize("shift", [-1, 1, 30])
def test_a_table_that_fills_the_limit(shift: int) -> None:
    """Its own numbers, one for the pipe and one to spare are enough."""
    numbers = [*range(60)]
    made = launch(*numbers[shift:], *numbers[:shift], error_fd=60)
    seen = shuffled(made, limit=62)
    assert {number: seen["before"][str(source)] for number, source in plan(made).targets} == {
        int(number): inode for number, inode in seen["after"].items() if int(number) < 60
    }


def test_stored_ones_follow_and_ready_comes_last() -> None:
    made = plan(launch("/dev/null", 7, 7, 5, 4, ready=(9, 6)))
    assert made.targets == ((0, "/dev/null"), (1, 7), (2, 7), (3, 5), (4, 4), (9, 6))
    assert made.error_target == 10


@pytest.mark.parametrize("number", [0, 2, 3, 4])
def test_the_ready_pipe_displaces_nothing(number: int) -> None:
    with pytest.raises(StepError, match=f"descriptor {number} is in the table") as caught:
        plan(launch(0, 1, 2, 10, 11, ready=(number, 12)))
    assert caught.value.errno == errno.EBUSY


def test_others_are_closed_before_anything_else() -> None:
    def check() -> tuple[set[int], set[int]]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        out, table, _other = (os.memfd_create("test") for _ in range(3))
        pipe = os.dup(write_end)
        close_others(launch("/dev/null", out, out, table, "/dev/null", table, ready=(9, write_end), error_fd=pipe))
        assert read_end not in open_numbers()
        return open_numbers(), {0, 1, 2, out, table, write_end, pipe}

    # what is left is not enough to tell anybody of it
    numbers, kept = _over_a_pipe(check)
    assert numbers == kept


def _over_a_pipe(check: Callable[[], tuple[set[int], set[int]]]) -> tuple[set[int], set[int]]:
    """As `in_child`, through stdout, which stays open."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write_end, 1)
            os.write(1, json.dumps([sorted(numbers) for numbers in check()]).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    data = read_all(read_end)
    os.waitpid(pid, 0)
    numbers, kept = json.loads(data)
    return set(numbers), set(kept)


def test_gaps() -> None:
    assert gaps([0, 1, 2, 3]) == [(4, LAST_DESCRIPTOR)]
    assert gaps([0, 1, 2, 5, 6, 9]) == [(3, 4), (7, 8), (10, LAST_DESCRIPTOR)]


def test_a_descriptor_that_is_not_open_is_named_and_the_pipe_survives() -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        pipe = ErrorPipe(write_end)
        try:
            arrange(plan(launch("/dev/null", "/dev/null", "/dev/null", 0, 9999, error_fd=write_end)), pipe)
        except BaseException as error:
            pipe.report(error)
        os._exit(0)
    os.close(write_end)
    failure = read_failure(read_all(read_end))
    os.waitpid(pid, 0)
    assert failure is not None
    assert (failure.step, failure.errno) == ("place descriptor 4", errno.EBADF)
