"""Real descriptors at random numbers, shuffled in a forked process: what comes out, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.launch.operations import Kind, operation
from supervisor.launch.program import carry_out_forked
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.linux.signal_mask import OF_PROCESSES
from supervisor.process.child import forked_plan
from supervisor.process.child_descriptors import gaps
from supervisor.process.failure import ErrorPipe
from supervisor.process.launch import Launch, Source
from tests.unit.process.forked import open_numbers, read_all

HEADER = 16  # bytes of a plan before its operations
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
        worker=True,
    )


def targets_of(launch: Launch) -> dict[int, Source]:
    """Return the sources by the number that the service gets."""
    table = (*launch.stdio, *(source for _name, source in launch.fds))
    return {**dict(enumerate(table)), **dict([launch.ready] if launch.ready else [])}


def shuffled(launch: Launch, limit: int = 4 * AWAY) -> dict[str, Any]:
    """Return the descriptors of a process by number after its set-up under a limit, with those from before."""
    sources = {source for source in targets_of(launch).values() if isinstance(source, int)}
    ours, theirs = socket.socketpair()
    ours.send(b"\n")  # it may go on as soon as it is set up
    pid = os.fork()
    if pid == 0:
        pipe = ErrorPipe(theirs.fileno())
        try:
            high = fcntl.fcntl(pipe.fd, fcntl.F_DUPFD, 2 * AWAY)
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
            _, pipe.fd = carry_out_forked(forked_plan(launch), pipe.fd)
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
    theirs.close()
    message = json.loads(read_all(ours.detach()))
    os.waitpid(pid, 0)
    assert "before" in message, message
    return message  # type: ignore[no-any-return]


def sources(data: bytes) -> list[Source]:
    """Read a list that was drawn as a whole, which takes less time than one number after the other."""
    read = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2)]
    return ["/dev/null" if number % 3 == 2 else (number // 3) % (401 if number % 3 else 41) for number in read]


@st.composite
def launches(draw: st.DrawFn) -> Launch:
    """Tables of up to a few hundred, their sources anywhere: in the way, above, one in two places, /dev/null."""
    number = st.integers(0, 40) | st.integers(0, 400)
    table = sources(draw(st.binary(min_size=2 * 3, max_size=2 * 20) | st.binary(min_size=2 * 200, max_size=2 * 260)))
    ready = None
    if draw(st.booleans()):
        ready = (len(table) + draw(st.integers(0, 10)), draw(number))
    used = {source for source in table if isinstance(source, int)} | ({ready[1]} if ready else set())
    error_fd = draw(number.filter(lambda number: number not in used))
    return launch(*table, ready=ready, error_fd=error_fd)


@settings(max_examples=150, deadline=None, database=None)
@given(launches())
def test_every_table_comes_out_right(launch: Launch) -> None:
    seen = shuffled(launch)
    targets = targets_of(launch)
    error_target = max(targets) + 1
    assert {int(number) for number in seen["after"]} == {*targets, error_target}
    assert sorted(seen["inheritable"]) == sorted(targets)
    assert seen["pipe"] == error_target
    for target, source in targets.items():
        expected = NULL.st_ino if isinstance(source, str) else seen["before"][str(source)]
        assert seen["after"][str(target)] == expected


@pytest.mark.parametrize("shift", [-1, 1, 30])
def test_a_table_that_fills_the_limit(shift: int) -> None:
    """Its own numbers, one for the pipe and those that a step needs for a moment are enough."""
    numbers = [*range(60)]
    made = launch(*numbers[shift:], *numbers[:shift], error_fd=60)
    seen = shuffled(made, limit=63)
    assert {number: seen["before"][str(source)] for number, source in targets_of(made).items()} == {
        int(number): inode for number, inode in seen["after"].items() if int(number) < 60
    }


def test_stored_ones_follow_and_ready_comes_last() -> None:
    made = launch("/dev/null", 7, 7, 5, 4, ready=(9, 6))
    assert targets_of(made) == {0: "/dev/null", 1: 7, 2: 7, 3: 5, 4: 4, 9: 6}
    assert shuffled(made)["pipe"] == 10


@pytest.mark.parametrize("number", [0, 2, 3, 4])
def test_the_ready_pipe_displaces_nothing(number: int) -> None:
    with pytest.raises(StepError, match=f"descriptor {number} is in the table") as caught:
        forked_plan(launch(0, 1, 2, 10, 11, ready=(number, 12)))
    assert caught.value.errno == errno.EBUSY


def test_others_are_closed_before_anything_else() -> None:
    """A process that hangs in a later step holds none of them."""
    made = launch("/dev/null", 5, 5, 8, "/dev/null", 8, ready=(9, 7), error_fd=11)
    data = forked_plan(made)
    begin = [operation(Kind.SESSION, "start a session")]
    begin.append(operation(Kind.SIGNALS, "reset signals", numbers=[True, OF_PROCESSES]))
    numbers = [0, 4, 6, 6, 9, 10, 12, LAST_DESCRIPTOR]
    begin.append(operation(Kind.CLOSE, "close the other descriptors", numbers=numbers))
    assert data[HEADER:].startswith(b"".join(begin))


def test_gaps() -> None:
    assert gaps([0, 1, 2, 3]) == [(4, LAST_DESCRIPTOR)]
    assert gaps([9, 1, 2, 5, 6]) == [(0, 0), (3, 4), (7, 8), (10, LAST_DESCRIPTOR)]
