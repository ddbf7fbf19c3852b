"""The log worker, run as spawnd runs it: real processes, real pipes."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.linux import pipe_call
from supervisor.log.handler import CUT, LineHandler
from supervisor.log.output import WorkerOutputs
from supervisor.log.ring import SIZE
from supervisor.loop.loop import Loop
from tests import fuse, held_pipe, withdrawn_page
from tests.unit.closing import PatientCloser
from tests.unit.log.kept import kept_output
from tests.unit.loop.clock import Clock
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop, child_process, turn, wait_exit, wait_until
from tests.unit.workers.log_worker import LogWorker
from workers.log.main import PAUSE, REST, Worker
from workers.log.outlet import Outlet
from workers.log.stream import BACKLOG

Start = Callable[[], LogWorker]

needs_faults = pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")

@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as loop:
        yield loop


@pytest.fixture
def outputs(loop: Loop) -> Iterator[WorkerOutputs]:
    before = open_numbers()
    outputs = WorkerOutputs(loop, PatientCloser().close)
    yield outputs
    for name in list(outputs._streams):
        outputs.drop(name)
    outputs._close_feed()
    assert open_numbers() == before


@pytest.fixture
def start(outputs: WorkerOutputs) -> Iterator[Start]:
    """Starts workers, which are ended and reaped after the test."""
    with ExitStack() as stack:

        def start(executed: bool = False) -> LogWorker:
            worker = LogWorker(outputs, executed)
            stack.callback(worker.close)
            return worker

        yield start


@pytest.fixture
def worker(start: Start) -> LogWorker:
    return start()


@pytest.mark.parametrize("executed", [False, True])
def test_every_line_is_passed_on_and_kept(
    outputs: WorkerOutputs, start: Callable[[bool], LogWorker], executed: bool
) -> None:
    early = outputs.stream("early")
    worker = start(executed)
    late = outputs.stream("late")
    os.write(early, b"one\ntwo\n")
    assert worker.log_until("early: two") == ["early: one", "early: two"]
    os.write(late, b"three\n\nlast\n")
    assert worker.log_until("late: last") == ["late: three", "late: ", "late: last"]
    assert kept_output(outputs, "early") == b"one\ntwo\n"
    assert kept_output(outputs, "late") == b"three\n\nlast\n"
    worker.kill(signal.SIGTERM)
    assert worker.wait_exit() == 0


def test_a_line_that_comes_in_pieces_is_passed_on_whole(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fd = outputs.stream("a")
    for piece in (b"he", b"l", b"lo"):
        kept = kept_output(outputs, "a") + piece
        os.write(fd, piece)
        wait_until(lambda kept=kept: kept_output(outputs, "a") == kept)  # type: ignore[misc]
    os.write(fd, b"\nnext\n")
    assert worker.log_until("next") == ["a: hello", "a: next"]


def joined(pieces: list[str]) -> str:
    """A line out of its pieces, which say where it was cut."""
    return "\n".join(piece.removeprefix("a: ") for piece in pieces).replace(f"{CUT}\n{CUT}", "")


@pytest.mark.parametrize("size", [2047, 2048, 2049, 5000, 30_000])
def test_a_long_line_is_passed_on_in_pieces(outputs: WorkerOutputs, worker: LogWorker, size: int) -> None:
    text = ("0123456789abcdef" * 4000)[:size]
    os.write(outputs.stream("a"), f"{text}\nnext\n".encode())
    *pieces, last = worker.log_until("next")
    assert last == "a: next"
    assert all(piece.startswith("a: ") for piece in pieces)
    assert joined(pieces) == text
    assert max(map(len, pieces)) <= 2048 + len(f"a: {CUT}{CUT}")


def test_a_line_without_an_end_does_not_grow_for_ever(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fd = outputs.stream("a")
    for _ in range(10):
        os.write(fd, b"z" * 1000)
    # all but the last piece, which may go on
    wait_until(lambda: len(kept_output(outputs, "a")) == 10_000)
    os.write(fd, b"\nnext\n")
    *pieces, last = worker.log_until("next")
    assert last == "a: next"
    assert joined(pieces) == "z" * 10_000
    assert len(pieces) >= 5


def test_what_is_no_text_is_passed_on_as_an_escape(outputs: WorkerOutputs, worker: LogWorker) -> None:
    os.write(outputs.stream("a"), b"\xff\xfe ok\n")
    assert worker.log_until("ok") == [r"a: \xff\xfe ok"]


def test_one_that_floods_does_not_keep_the_others_waiting(outputs: WorkerOutputs, worker: LogWorker) -> None:
    noisy, quiet = outputs.stream("noisy"), outputs.stream("quiet")

    def flood() -> None:
        while True:
            os.write(noisy, b"noise\n" * 1000)

    kept = b""
    with child_process(flood):
        wait_until(lambda: kept_output(outputs, "noisy"))
        for number in range(5):
            line = b"still here %d\n" % number
            kept += line
            os.write(quiet, line)
            wait_until(lambda: kept_output(outputs, "quiet") == kept)  # noqa: B023 - called before it changes


def test_a_service_never_blocks_on_a_log_that_nobody_reads(outputs: WorkerOutputs, worker: LogWorker) -> None:
    """The lines are lost from the log, the last of them are kept all the same."""
    fd = outputs.stream("a")

    def write() -> None:
        for number in range(3000):
            os.write(fd, b"%08d" % number + b"x" * 1000 + b"\n")

    with child_process(write) as pid:
        assert wait_exit(pid) == 0
    wait_until(lambda: b"00002999x" in kept_output(outputs, "a"))
    assert SIZE - 2000 < len(kept_output(outputs, "a")) <= SIZE


def test_a_log_whose_reader_is_gone_ends_nobody(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fd = outputs.stream("a")
    os.write(fd, b"hello\n")
    worker.log_until("hello")
    worker.stop_reading()
    os.write(fd, b"into the void\n")
    wait_until(lambda: kept_output(outputs, "a") == b"hello\ninto the void\n")
    worker.kill(signal.SIGTERM)
    assert worker.wait_exit() == 0


def test_after_kill_9_the_next_worker_goes_on(outputs: WorkerOutputs, start: Start) -> None:
    first = start()
    fd = outputs.stream("a")
    os.write(fd, b"one\n")
    first.log_until("one")
    first.kill(signal.SIGKILL)
    assert first.wait_exit() == -signal.SIGKILL
    os.write(fd, b"meanwhile\n")
    second = start()
    os.write(fd, b"two\n")
    assert second.log_until("two") == ["a: meanwhile", "a: two"]
    assert kept_output(outputs, "a") == b"one\nmeanwhile\ntwo\n"


def test_on_term_it_reads_what_is_there_first(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fds = [outputs.stream(name) for name in "abc"]
    os.write(fds[0], b"hello\n")
    worker.log_until("hello")
    worker.kill(signal.SIGSTOP)
    for fd in fds:
        os.write(fd, b"0123456789\n" * 150 + b"no end")
    worker.kill(signal.SIGTERM)
    worker.kill(signal.SIGCONT)
    assert worker.wait_exit() == 0
    lines = worker.rest_of_log()
    for name in "abc":
        assert lines.count(f"{name}: 0123456789") == 150
        assert lines.count(f"{name}: no end") == 1
        assert kept_output(outputs, name).endswith(b"\nno end")


@pytest.mark.parametrize("executed", [False, True])
def test_a_term_that_comes_while_it_starts_loses_nothing(outputs: WorkerOutputs, executed: bool) -> None:
    os.write(outputs.stream("a"), b"hello\nno end")
    worker = LogWorker(outputs, executed)
    try:
        worker.kill(signal.SIGTERM)
        assert worker.wait_exit() == 0
        assert worker.rest_of_log() == ["a: hello", "a: no end"]
    finally:
        worker.close()


def test_one_that_writes_for_ever_does_not_keep_it_from_its_end(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fd = outputs.stream("a")

    def flood() -> None:
        while True:
            os.write(fd, b"noise " * 100 + b"\n")

    with child_process(flood):
        wait_until(lambda: kept_output(outputs, "a"))
        worker.kill(signal.SIGTERM)
        assert worker.wait_exit() == 0


def test_a_stream_that_is_dropped_is_read_to_its_end(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fd = outputs.stream("a")
    worker.kill(signal.SIGSTOP)
    os.write(fd, b"last words\nno end")
    outputs.drop("a")
    os.write(outputs.stream("b"), b"and b\n")
    worker.kill(signal.SIGCONT)
    assert worker.log_until("and b") == ["a: last words", "a: no end", "b: and b"]
    wait_until(lambda: len(os.listdir(f"/proc/{worker.pid}/fd")) == _plain_worker_fds() + 2)


def _plain_worker_fds() -> int:
    """0, 1, 2, the feed, epoll, the two ends of the wake-up pipe, the log once more, and two for calls of children."""
    return 10


@needs_faults
def test_a_pipe_that_is_kept_stops_no_other_lines(outputs: WorkerOutputs, worker: LogWorker) -> None:
    kept, other = outputs.stream("a"), outputs.stream("b")
    os.write(other, b"ready\n")
    assert worker.log_until("b: ready") == ["b: ready"]
    worker.kill(signal.SIGSTOP)
    os.write(kept, b"one\n")
    with held_pipe.held(kept):
        worker.kill(signal.SIGCONT)
        os.write(other, b"two\n")
        assert worker.log_until("b: two") == ["b: two"]
    assert worker.log_until("a: one") == ["a: one"]
    for text in ("three", "four"):
        os.write(kept, f"{text}\n".encode())
        assert worker.log_until(text) == [f"a: {text}"]


@needs_faults
def test_a_pipe_that_is_kept_is_dropped(outputs: WorkerOutputs, worker: LogWorker) -> None:
    kept = os.dup(outputs.stream("a"))
    worker.kill(signal.SIGSTOP)
    os.write(kept, b"one\ntwo")
    with held_pipe.held(kept):
        outputs.drop("a")
        worker.kill(signal.SIGCONT)
        os.write(outputs.stream("b"), b"other\n")
        assert worker.log_until("b: other") == ["b: other"]
    assert worker.log_until("a: two") == ["a: one", "a: two"]
    os.close(kept)
    wait_until(lambda: len(os.listdir(f"/proc/{worker.pid}/fd")) == _plain_worker_fds() + 2)


@needs_faults
def test_a_pipe_that_is_kept_delays_no_end(outputs: WorkerOutputs, worker: LogWorker) -> None:
    kept, other = outputs.stream("a"), outputs.stream("b")
    worker.kill(signal.SIGSTOP)
    os.write(kept, b"one\n")
    with held_pipe.held(kept):
        os.write(other, b"two\n")
        worker.kill(signal.SIGTERM)
        worker.kill(signal.SIGCONT)
        assert worker.rest_of_log() == ["b: two"]
        assert worker.wait_exit() == 0


@pytest.mark.skipif(not fuse.is_possible(), reason="needs root and FUSE")
def test_a_page_that_is_withdrawn_stops_no_other_lines(outputs: WorkerOutputs, worker: LogWorker) -> None:
    kept, other = os.dup(outputs.stream("a")), outputs.stream("b")
    worker.kill(signal.SIGSTOP)
    with withdrawn_page.held(kept):
        worker.kill(signal.SIGCONT)
        os.write(other, b"one\n")
        assert worker.log_until("b: one") == ["b: one"]
    os.write(other, b"two\n")
    assert worker.log_until("b: two") == ["b: two"]
    outputs.drop("a")
    os.close(kept)
    wait_until(lambda: len(os.listdir(f"/proc/{worker.pid}/fd")) == _plain_worker_fds() + 2)


def test_a_name_that_comes_again_is_another_stream(outputs: WorkerOutputs, worker: LogWorker) -> None:
    os.write(outputs.stream("a"), b"old\n")
    outputs.drop("a")
    os.write(outputs.stream("a"), b"new\n")
    assert worker.log_until("new") == ["a: old", "a: new"]
    assert kept_output(outputs, "a") == b"new\n"


def test_when_spawnd_is_gone_it_reads_on_and_costs_nothing(outputs: WorkerOutputs, worker: LogWorker) -> None:
    fd = outputs.stream("a")
    os.write(fd, b"before\n")
    worker.log_until("before")
    outputs._close_feed()
    os.write(fd, b"after\n")
    assert worker.log_until("after") == ["a: after"]
    stat = Path(f"/proc/{worker.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
    worker.kill(signal.SIGTERM)
    assert worker.wait_exit() == 0


def test_when_all_who_could_write_are_gone_it_costs_nothing(
    loop: Loop, outputs: WorkerOutputs, worker: LogWorker
) -> None:
    """The ends of pipes are told of for ever as long as they are watched."""
    os.write(outputs.stream("a"), b"before\n")
    worker.log_until("before")
    outputs._close_feed()
    outputs.drop("a")
    turn(loop)
    stat = Path(f"/proc/{worker.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
    worker.kill(signal.SIGTERM)
    assert worker.wait_exit() == 0


def test_a_service_that_floods_waits_and_neither_it_nor_others_lose_lines(
    outputs: WorkerOutputs, worker: LogWorker
) -> None:
    noisy, quiet = outputs.stream("noisy"), outputs.stream("quiet")
    count = 20_000

    def flood() -> None:
        with open(noisy, "wb", closefd=False) as file:
            for number in range(count):
                file.write(b"%08d%s\n" % (number, b"x" * 40))

    data, said, seen = b"", 0, 0
    with child_process(flood) as pid:
        wait_until(lambda: len(kept_output(outputs, "noisy")) >= BACKLOG)
        while b"noisy: %08d" % (count - 1) not in data[-200_000:]:
            if said * 50_000 <= len(data):
                os.write(quiet, b"line %d\n" % said)
                said, seen = said + 1, len(data)
            data = worker.read_some(data, 4096)
            if b"quiet: line %d\n" % (said - 1) not in data[seen - 100 :]:
                # what was in the pipe before it, and a share of the flood
                assert len(data) - seen < 2 * 65536
        assert wait_exit(pid) == 0
    lines = [line.split(" ", 3)[3].lstrip() for line in data.decode().split("\n")[:-1]]
    assert [line for line in lines if "lost" in line] == []
    assert [int(line[7:15]) for line in lines if line.startswith("noisy: ")] == list(range(count))
    assert said > 10
    # the last one may come after the end of the flood
    assert [line for line in lines if line.startswith("quiet: ")][: said - 1] == [
        f"quiet: line {number}" for number in range(said - 1)
    ]


def test_a_service_that_writes_line_by_line_is_read_now_and_then(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    clock = Clock()
    loop = Loop(errors.append, clock)
    outputs = WorkerOutputs(loop, PatientCloser().close)
    ((_name, feed),) = outputs.feed()
    with open(tmp_path / "log", "wb") as file, socket.socket(fileno=feed) as sock:
        Worker(loop, sock, Outlet(LineHandler(file.fileno())))
        fd = outputs.stream("a")

        def has_come(end: bytes) -> bool:
            turn(loop)
            return kept_output(outputs, "a").endswith(end)

        for number in range(3):
            os.write(fd, b"first\n")
            wait_until(lambda: has_come(b"first\n"))
            os.write(fd, b"second\n")
            clock.now += REST * 0.9
            turn(loop, 5)
            assert kept_output(outputs, "a").count(b"second") == number, "it rests"
            clock.now += REST * 0.2
            wait_until(lambda: has_come(b"second\n"))
            clock.now += REST * 1.1
        outputs.drop("a")
        turn(loop, 5)
        outputs._close_feed()
    loop.close()
    assert not errors


def test_without_children_a_dropped_stream_waits_and_stops_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = []
    clock = Clock()
    loop = Loop(errors.append, clock)
    outputs = WorkerOutputs(loop, PatientCloser().close)
    ((_name, feed),) = outputs.feed()
    with open(tmp_path / "log", "wb") as file, socket.socket(fileno=feed) as sock:
        Worker(loop, sock, Outlet(LineHandler(file.fileno())))
        before = open_numbers()

        def has_come(end: str) -> bool:
            clock.now += PAUSE
            turn(loop)
            return (tmp_path / "log").read_text().endswith(f"{end}\n")

        kept = os.dup(outputs.stream("a"))
        os.write(kept, b"first\n")
        wait_until(lambda: has_come("a: first"))
        with monkeypatch.context() as patch:
            patch.setattr(pipe_call, "_begin", lambda *_: -errno.EAGAIN)
            os.write(kept, b"last\n")
            outputs.drop("a")
            turn(loop, 5)
        wait_until(lambda: has_come("a: last"))
        os.close(kept)
        wait_until(lambda: has_come("a: last") and open_numbers() == before)
        outputs._close_feed()
    loop.close()
    assert not errors
