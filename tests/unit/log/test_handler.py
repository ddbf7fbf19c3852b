"""Sinks of the log take a line or do not; they never wait."""

from __future__ import annotations

import logging
import mmap
import os
import pty
import resource
import signal
import socket
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from operator import ge
from pathlib import Path

import pytest

from supervisor.log.handler import MAX_LINE, LineHandler, Sink, StreamSink, SyslogSink
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.waiting import child_process, wait_until

StreamSinks = Callable[[int], StreamSink]
LINE = b"x" * 99 + b"\n"
ENDLESS = 1_000_000  # lines that nothing here takes


def fill(sink: Sink, line: bytes = LINE) -> int:
    """Write until it takes no more; how many lines it took."""
    taken = 0
    while sink.write(line):
        taken += 1
        assert taken < ENDLESS, "it is never full"
    return taken


@pytest.fixture
def stream() -> Iterator[StreamSinks]:
    """Makes sinks and closes them, which leaves the descriptors that they were given."""
    with ExitStack() as stack:
        yield lambda fd: stack.enter_context(closing(StreamSink(fd)))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize("size", [1, 100, MAX_LINE])
def test_a_full_pipe_takes_whole_lines_or_none(pipe: tuple[int, int], size: int, stream: StreamSinks) -> None:
    sink = stream(pipe[1])
    line = b"y" * (size - 1) + b"\n"
    taken = fill(sink, line)
    assert taken * size > 32 * 1024
    assert not sink.write(line)
    assert os.read(pipe[0], 1 << 20) == line * taken
    assert sink.write(line), "there is room again"


def test_lines_go_together_as_far_as_a_pipe_takes_them_whole(pipe: tuple[int, int]) -> None:
    with closing(LineHandler(pipe[1])) as handler:
        lines = [f"{number:0500}" for number in range(20)]
        taken = handler.offer_some(logging.INFO, lines)
        assert taken > 1
        data = os.read(pipe[0], 1 << 16)
        assert [line[-500:].decode() for line in data.splitlines()] == lines[:taken]
        assert MAX_LINE - 600 < len(data) <= MAX_LINE
        assert handler.offer_some(logging.INFO, ["x" * 2 * MAX_LINE, "y"]) == 1
        while handler.offer_some(logging.INFO, lines):
            pass
        assert handler.is_full
        handler.lose(2)
        os.read(pipe[0], 1 << 16)
        assert handler.offer_some(logging.INFO, lines) == 1
        assert b"2 lines of log were lost" in os.read(pipe[0], 1 << 16)


def test_lines_go_to_a_socket_one_by_one() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, closing(LineHandler(theirs.fileno())) as handler:
        assert handler.offer_some(logging.INFO, ["one", "two"]) == 1
        assert ours.recv(100).endswith(b"one\n")


def test_a_pipe_is_left_as_it_is_for_those_who_share_it(pipe: tuple[int, int], stream: StreamSinks) -> None:
    fill(stream(pipe[1]))
    assert os.get_blocking(pipe[1])


def test_others_who_fill_the_pipe_between_look_and_write_are_no_trap(pipe: tuple[int, int]) -> None:
    """Two write to one pipe; each time there is room for one line alone, and neither may wait."""
    turns = memoryview(mmap.mmap(-1, 16)).cast("Q")
    line = b"y" * (MAX_LINE - 1) + b"\n"

    def write(number: int) -> None:
        sink = StreamSink(pipe[1])
        while True:
            sink.write(line)
            turns[number] += 1

    with child_process(lambda: write(0)), child_process(lambda: write(1)):
        for _ in range(100):
            enough = [count + 3 for count in turns]
            wait_until(lambda: all(map(ge, turns, enough)))  # noqa: B023 - called before it changes
            os.read(pipe[0], MAX_LINE)


def test_a_pipe_of_another_user_works_without_being_opened_again() -> None:
    """A worker that gave up root may write to its stderr, but not open it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: changes users")

    def write() -> tuple[int, bytes]:
        read_end, write_end = os.pipe()
        os.fchmod(write_end, 0o600)
        os.setresuid(65534, 65534, 65534)
        before = open_numbers()
        sink = StreamSink(write_end)
        assert open_numbers() == before, "the pipe could be opened"
        taken = fill(sink)
        return taken, os.read(read_end, 200)

    taken, start = in_child(write)
    assert taken > 500
    assert start == LINE * 2


def test_a_pipe_that_nobody_reads_any_more_takes_nothing(stream: StreamSinks) -> None:
    read_end, write_end = os.pipe()
    sink = stream(write_end)
    os.close(read_end)
    assert not sink.write(LINE)
    os.close(write_end)


def test_close_closes_what_was_opened_and_no_more(pipe: tuple[int, int]) -> None:
    before = open_numbers()
    sink = StreamSink(pipe[1])
    assert open_numbers() > before
    sink.close()
    sink.close()
    assert open_numbers() == before


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_full_socket(kind: socket.SocketKind, stream: StreamSinks) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        sink = stream(ours.fileno())
        taken = fill(sink)
        assert taken > 0
        assert ours.getblocking()
        data = b""
        while len(data) < taken * len(LINE):
            data += theirs.recv(1 << 20)
        assert data == LINE * taken
        assert sink.write(LINE)


def test_a_socket_whose_peer_is_gone_takes_nothing() -> None:
    def write() -> int:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        ours, theirs = socket.socketpair()
        theirs.close()
        return StreamSink(ours.fileno()).write(LINE)

    assert in_child(write) == 0


def test_sockets_cost_no_descriptor_a_line(stream: StreamSinks) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = stream(ours.fileno())
        before = open_numbers()
        fill(sink)
        assert open_numbers() == before


def test_a_stopped_terminal(stream: StreamSinks) -> None:
    """As after a Ctrl-S."""
    master, slave = pty.openpty()
    try:
        sink = stream(slave)
        assert sink.write(b"before\n")
        termios.tcflow(slave, termios.TCOOFF)
        taken = fill(sink)
        assert taken < ENDLESS
        termios.tcflow(slave, termios.TCOON)
        assert b"before" in os.read(master, 4096)
    finally:
        os.close(slave)
        os.close(master)


def test_a_full_disk(stream: StreamSinks) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        assert not stream(fd).write(LINE)
    finally:
        os.close(fd)


@pytest.mark.parametrize("together", [True, False])
def test_a_disk_that_becomes_full_cuts_a_line_but_not_the_next_one(tmp_path: Path, together: bool) -> None:
    path = tmp_path / "log"
    lines = [f"line {number}" for number in range(10)]

    def write() -> None:
        with open(path, "ab") as file, closing(LineHandler(file.fileno())) as handler:
            size = len(f"{handler._begin(logging.INFO)}line 0\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size * 7 // 2, resource.RLIM_INFINITY))
            if together:
                assert handler.offer_some(logging.INFO, lines) == 3
                assert handler.offer_some(logging.INFO, lines[3:]) == 0
                handler.lose(7)
            else:
                handler.write_all(logging.INFO, lines)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            handler.write(logging.INFO, "after")

    in_child(write)
    *whole, cut, lost, after = path.read_text().splitlines()
    assert [line.split()[-2:] for line in whole] == [["line", str(number)] for number in range(3)]
    assert len(cut) == len(whole[0]) // 2
    assert (lost[-24:], after[-6:]) == ("7 lines of log were lost", " after")


def test_a_plain_file(tmp_path: Path, stream: StreamSinks) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        sink = stream(fd)
        assert sink.write(b"one\n")
        assert sink.write(b"two\n")
    finally:
        os.close(fd)
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_closed_descriptor_takes_nothing(stream: StreamSinks) -> None:
    fd = os.memfd_create("log")
    sink = stream(fd)
    os.close(fd)
    assert not sink.write(LINE)


# syslog


@pytest.fixture
def devlog(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        daemon.setblocking(False)
        yield daemon


def test_syslog_gets_facility_name_and_pid(devlog: socket.socket) -> None:
    with closing(SyslogSink("spawnd", devlog.getsockname())) as sink:
        assert sink.write(b"<3>it is <broken>\n")
        assert sink.write(b"<6>\n")
    assert devlog.recv(4096) == b"<27>spawnd[%d]: it is <broken>" % os.getpid()
    assert devlog.recv(4096) == b"<30>spawnd[%d]: " % os.getpid()


def test_syslog_that_nobody_reads_takes_no_more(devlog: socket.socket) -> None:
    with closing(SyslogSink("spawnd", devlog.getsockname())) as sink:
        taken = fill(sink, b"<6>" + LINE)
        for _ in range(taken):
            devlog.recv(4096)
        assert sink.write(b"<6>room again\n")


def test_syslog_is_found_when_it_comes_and_when_it_comes_again(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with closing(SyslogSink("spawnd", path)) as sink:
        assert not sink.write(b"<6>nobody yet\n")
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
                daemon.bind(path)
                assert sink.write(b"<6>hello\n")
                assert daemon.recv(100).endswith(b": hello")
            os.unlink(path)
            assert not sink.write(b"<6>gone\n")
