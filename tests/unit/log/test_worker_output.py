"""Messages to the log worker, with a test in its place."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator

import prctl
import pytest

from supervisor.errors import StepError
from supervisor.linux import pipe_call
from supervisor.log import output
from supervisor.log.output import FEED_SIZE, MOST_KILLED, PROCESS_ENDED, WorkerOutputs
from supervisor.log.ring import append
from supervisor.loop.loop import Loop
from supervisor.notify.safe_close import Closer
from tests import held_pipe
from tests.unit.closing import PatientCloser, Reaper, Stopped
from tests.unit.log.kept import kept_output
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import HELD_UP, fill, run_until, turn, wait_until


class Worker:
    """The worker's end of the feed: it reads what it is told, and writes to rings."""

    def __init__(self, feed: list[tuple[str, int]]) -> None:
        ((name, fd),) = feed
        assert name == "feed"
        self.feed = socket.socket(fileno=fd)
        self.streams: dict[str, tuple[int, int]] = {}

    def read(self) -> list[tuple[str, int]]:
        """Return the messages since the last call, each with its number of descriptors."""
        news: list[tuple[str, int]] = []
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(self.feed, FEED_SIZE, 2)
            except BlockingIOError:
                return news
            assert message, "the feed has ended"
            name = message[1:].decode()
            self._forget(name)
            if fds:
                self.streams[name] = fds[0], fds[1]
            news.append((message.decode(), len(fds)))

    def _forget(self, name: str) -> None:
        for fd in self.streams.pop(name, ()):
            os.close(fd)

    def die(self) -> None:
        for name in list(self.streams):
            self._forget(name)
        self.feed.close()


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
def worker(outputs: WorkerOutputs) -> Iterator[Worker]:
    worker = Worker(outputs.feed())
    yield worker
    worker.die()


def test_a_stream_is_told_of_with_pipe_and_ring(outputs: WorkerOutputs, worker: Worker) -> None:
    fd = outputs.stream("qotd")
    assert worker.read() == [("+qotd", 2)]
    os.write(fd, b"hello\n")
    pipe, ring = worker.streams["qotd"]
    assert os.read(pipe, 100) == b"hello\n"
    append(ring, b"hello\n")
    assert kept_output(outputs, "qotd") == b"hello\n"


def test_a_stream_is_made_once_and_told_of_once(outputs: WorkerOutputs, worker: Worker) -> None:
    assert outputs.stream("a") == outputs.stream("a")
    assert worker.read() == [("+a", 2)]


def test_what_was_never_written_is_empty(outputs: WorkerOutputs) -> None:
    assert kept_output(outputs, "a") == b""
    outputs.stream("a")
    assert kept_output(outputs, "a") == b""


def test_drop_closes_and_tells(outputs: WorkerOutputs, worker: Worker) -> None:
    outputs.stream("a")
    outputs.drop("a")
    outputs.drop("a")
    assert worker.read() == [("+a", 2), ("-a", 0)]
    assert kept_output(outputs, "a") == b""


def test_a_new_worker_is_told_of_all_streams_and_loses_nothing(loop: Loop, outputs: WorkerOutputs) -> None:
    first = Worker(outputs.feed())
    written = {name: outputs.stream(name) for name in "abc"}
    assert len(first.read()) == 3
    append(first.streams["a"][1], b"kept\n")
    os.write(written["a"], b"not yet read\n")
    first.die()
    turn(loop, 2)
    outputs.drop("b")
    written["d"] = outputs.stream("d")
    second = Worker(outputs.feed())
    try:
        assert sorted(second.read()) == [("+a", 2), ("+c", 2), ("+d", 2)]
        assert os.read(second.streams["a"][0], 100) == b"not yet read\n"
        append(second.streams["a"][1], b"more\n")
        assert kept_output(outputs, "a") == b"kept\nmore\n"
        outputs.stream("e")
        assert second.read() == [("+e", 2)]
    finally:
        second.die()


def test_a_worker_that_was_not_there_yet_is_told_of_all(outputs: WorkerOutputs) -> None:
    outputs.stream("a")
    outputs.stream("b")
    outputs.drop("a")
    worker = Worker(outputs.feed())
    assert worker.read() == [("+b", 2)]
    worker.die()


def test_a_worker_that_is_replaced_while_it_lives_hears_the_end(outputs: WorkerOutputs, worker: Worker) -> None:
    second = Worker(outputs.feed())
    assert socket.recv_fds(worker.feed, FEED_SIZE, 2)[0] == b""
    outputs.stream("a")
    assert second.read() == [("+a", 2)]
    second.die()


def test_a_dead_worker_costs_nothing(loop: Loop, outputs: WorkerOutputs) -> None:
    """epoll tells of a hang-up until somebody stops watching."""
    worker = Worker(outputs.feed())
    worker.die()
    turn(loop)
    for _ in range(3):
        assert loop._epoll.poll(0, 10) == []
    outputs.stream("a")


def test_a_worker_that_died_unnoticed_harms_nobody(loop: Loop, outputs: WorkerOutputs) -> None:
    worker = Worker(outputs.feed())
    worker.die()
    outputs.stream("a")
    turn(loop, 2)
    outputs.stream("b")


def test_a_full_feed_goes_on_when_there_is_room(loop: Loop, outputs: WorkerOutputs, worker: Worker) -> None:
    """More names than a socket holds; the worker hears of each in its order."""
    names = [f"service-{number}" for number in range(600)]
    for name in names:
        outputs.stream(name)
    assert outputs._queue, "all of it fitted: the test tests nothing"
    told: list[tuple[str, int]] = []

    def all_told() -> bool:
        told.extend(worker.read())
        return len(told) == len(names)

    run_until(loop, all_told)
    assert told == [(f"+{name}", 2) for name in names]
    turn(loop)
    assert loop._epoll.poll(0, 10) == [], "it waits for room that it does not need"


def test_what_comes_and_goes_while_the_feed_is_full(loop: Loop, outputs: WorkerOutputs, worker: Worker) -> None:
    names = [f"service-{number}" for number in range(600)]
    for name in names:
        outputs.stream(name)
    queued = [name for _, name in outputs._queue]
    assert len(queued) > 2
    gone, again = queued[-1], queued[-2]
    outputs.drop(gone)
    outputs.drop(again)
    outputs.stream(again)
    run_until(loop, lambda: worker.read() is not None and not outputs._queue)
    worker.read()
    assert set(worker.streams) == {*names} - {gone}
    os.write(outputs.stream(again), b"hello")
    assert os.read(worker.streams[again][0], 10) == b"hello"


def test_the_longest_name_fits(outputs: WorkerOutputs, worker: Worker) -> None:
    name = "n" * (FEED_SIZE - 1)
    outputs.stream(name)
    assert worker.read() == [(f"+{name}", 2)]


def test_the_service_gets_a_pipe_that_blocks_and_that_no_other_program_inherits(outputs: WorkerOutputs) -> None:
    fd = outputs.stream("a")
    assert os.get_blocking(fd)
    assert not os.get_inheritable(fd)


@pytest.mark.parametrize("room", [0, 1, 2])
def test_without_a_free_descriptor_it_is_a_step_that_failed(room: int) -> None:
    def make() -> tuple[str, bool]:
        outputs = WorkerOutputs(Loop(on_error=lambda _error: None), PatientCloser().close)
        before = open_numbers()
        limit = [number for number in range(2000) if number not in before][room]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 2000))
        try:
            outputs.stream("a")
        except StepError as error:
            resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
            return str(error), open_numbers() == before
        return "", False

    assert in_child(make) == ("cannot make log of 'a': Too many open files (EMFILE)", True)


def test_the_end_of_a_process_is_marked_between_what_two_write(outputs: WorkerOutputs, worker: Worker) -> None:
    outputs.end_line("a")
    fd = outputs.stream("a")
    os.write(fd, b"last words")
    outputs.end_line("a")
    os.write(fd, b"next\n")
    assert os.get_blocking(fd)
    worker.read()
    assert os.read(worker.streams["a"][0], 1000) == b"last words" + PROCESS_ENDED + b"next\n"


def test_a_pipe_without_room_for_the_mark_stops_nobody(outputs: WorkerOutputs) -> None:
    fd = outputs.stream("a")
    fill(fd)
    outputs.end_line("a")


def test_one_mark_is_enough_until_another_process_has_the_pipe(outputs: WorkerOutputs, worker: Worker) -> None:
    outputs.stream("a")
    worker.read()
    for _ in range(2):
        outputs.end_line("a")
    assert os.read(worker.streams["a"][0], 1000) == PROCESS_ENDED
    outputs.stream("a")
    outputs.end_line("a")
    assert os.read(worker.streams["a"][0], 1000) == PROCESS_ENDED


class Killed:
    """A call whose child was killed before it wrote."""

    has_succeeded, was_killed = False, True

    def has_ended(self) -> bool:
        return True


def test_a_mark_whose_child_is_killed_is_written_by_another(
    outputs: WorkerOutputs, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = outputs.stream("a")
    worker.read()
    os.write(fd, b"last words")
    calls: list[int] = []

    def start(fd: int, data: bytes) -> Killed | pipe_call.PipeCall:
        calls.append(fd)
        return pipe_call.start_write(fd, data) if len(calls) == MOST_KILLED else Killed()

    monkeypatch.setattr(output, "start_write", start)
    for _ in range(2):
        outputs.end_line("a")
    assert os.read(worker.streams["a"][0], 1000) == b"last words" + PROCESS_ENDED
    assert len(calls) == MOST_KILLED
    outputs.stream("a")
    calls[:] = [fd] * MOST_KILLED
    outputs.end_line("a")
    assert len(calls) == 2 * MOST_KILLED, "not for ever"


@pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")
def test_a_pipe_that_somebody_keeps_goes_without_the_mark(outputs: WorkerOutputs, worker: Worker) -> None:
    fd = outputs.stream("a")
    worker.read()
    with held_pipe.held(fd):
        before = time.monotonic()
        outputs.end_line("a")
        outputs.end_line("a")
        assert time.monotonic() - before < HELD_UP
    wait_until(lambda: outputs._is_marked("a"))
    assert os.read(worker.streams["a"][0], 1000) == PROCESS_ENDED


@pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")
def test_a_pipe_that_somebody_keeps_is_dropped(loop: Loop) -> None:
    reaper = Reaper()
    outputs = WorkerOutputs(loop, Closer(Stopped(), reaper).close)
    fd = outputs.stream("a")
    with held_pipe.held(fd):
        outputs.end_line("a")
        outputs.drop("a")
        assert reaper.children
    reaper.settle()
    assert pipe_call._left.pop().has_ended(5000)


@needs_root
def test_a_group_may_open_the_pipe_to_write_and_no_more(outputs: WorkerOutputs) -> None:
    fd = outputs.stream("a")
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    outputs.stream("a", 4242)

    def try_all() -> list[str]:
        os.setresgid(4242, 4242, 4242)
        os.setgroups([])
        os.setresuid(4243, 4243, 4243)
        path = f"/proc/self/fd/{fd}"
        prctl.set_dumpable(1)  # as after an exec
        failed = []
        for name, attempt in (
            ("write", lambda: os.open(path, os.O_WRONLY | os.O_APPEND)),
            ("read", lambda: os.open(path, os.O_RDONLY)),
            ("both", lambda: os.open(path, os.O_RDWR)),
            ("chmod", lambda: os.chmod(path, 0o666)),
            ("chown", lambda: os.chown(path, 4243, -1)),
        ):
            try:
                attempt()
            except PermissionError:
                failed.append(name)
        return failed

    assert in_child(try_all) == ["read", "both", "chmod", "chown"]
    outputs.stream("a", 4244)
    assert in_child(try_all)[0] == "write"
