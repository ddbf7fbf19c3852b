"""Calls on pipes that another process keeps locked."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator

import pytest

from supervisor.linux import pipe_call
from supervisor.linux.pipe_call import is_at_end, open_end, start_read, start_write
from supervisor.loop.loop import Loop
from tests import held_pipe
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import HELD_UP, wait_until

Pipe = tuple[int, int]
needs_faults = pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    before = open_numbers()
    yield os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for fd in open_numbers() - before:
        os.close(fd)
    wait_until(lambda: all(call.has_ended(0) for call in pipe_call._left))
    pipe_call._left.clear()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL


@pytest.mark.parametrize("least", [0, 300])
def test_it_reads_and_writes_what_there_is(pipe: Pipe, least: int) -> None:
    reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least) for fd in pipe)
    write = start_write(writing, b"text")
    assert write.has_ended()
    assert write.result() is not None
    read = start_read(reading, 3)
    assert read.has_ended()
    assert read.result() == b"tex"
    assert os.read(reading, 100) == b"t"
    empty = start_read(reading)
    assert empty.has_ended()
    with pytest.raises(BlockingIOError):
        empty.result()


def test_its_end_is_read(pipe: Pipe) -> None:
    os.write(pipe[1], b"x")
    os.close(pipe[1])
    assert not is_at_end(pipe[0]), "to read the rest may wait"
    assert os.read(pipe[0], 10) == b"x"
    assert is_at_end(pipe[0])
    read = start_read(pipe[0])
    assert read.has_ended()
    assert read.result() == b""


def test_a_pipe_with_a_writer_is_not_at_its_end(pipe: Pipe) -> None:
    assert not is_at_end(pipe[0])


def test_an_end_to_write_is_opened(pipe: Pipe) -> None:
    fd = open_end(pipe[0], os.O_WRONLY)
    os.write(fd, b"x")
    assert os.read(pipe[0], 10) == b"x"


def test_a_reading_end_is_opened(pipe: Pipe) -> None:
    fd = open_end(pipe[1], os.O_RDONLY)
    os.write(pipe[1], b"x")
    assert os.read(fd, 10) == b"x"
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)


def test_what_is_no_pipe_cannot_be_opened(pipe: Pipe) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        open_end(1000, os.O_RDONLY)


@needs_faults
def test_nobody_waits_for_a_pipe_that_is_kept(pipe: Pipe) -> None:
    os.write(pipe[1], b"before")
    with held_pipe.held(pipe[1]):
        before = time.monotonic()
        read, write = start_read(pipe[0]), start_write(pipe[1], b"behind")
        assert not read.has_ended()
        assert not write.has_ended()
        with pytest.raises(TimeoutError):
            open_end(pipe[1], os.O_RDONLY)
        with pytest.raises(TimeoutError):
            open_end(pipe[0], os.O_WRONLY)
        assert time.monotonic() - before < HELD_UP
    wait_until(lambda: read.has_ended(0) and write.has_ended(0))
    assert read.result().startswith(b"before")


@needs_faults
def test_a_late_end_is_told(pipe: Pipe) -> None:
    loop = Loop(on_error=lambda error: pytest.fail(str(error)))
    os.write(pipe[1], b"before")
    with held_pipe.held(pipe[1]):
        read = start_read(pipe[0])
        assert not read.has_ended()
        read.when_ended(loop, loop.stop)
    loop.run()
    loop.close()
    assert read.result() == b"before"
