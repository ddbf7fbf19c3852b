"""Getting back what a lost spawnd had, from the processes that have it as well."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from supervisor.linux.open_files import identity
from supervisor.log.ring import append, make_ring, since
from supervisor.manager.salvage import Salvage
from supervisor.process.leftovers import start_time
from supervisor.process.run import Run
from supervisor.process.survivor import Holder, find_survivor
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import child_process, wait_readable


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = open_numbers()
    yield
    assert open_numbers() == before


@contextmanager
def process(prepare: Callable[[], object]) -> Iterator[Run]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def live() -> None:
        os.close(read_end)
        prepare()
        os.write(write_end, b"!")
        signal.pause()

    try:
        with child_process(live) as pid:
            wait_readable(read_end)
            run = find_survivor(pid, start_time(pid))
            assert run is not None
            yield run
            run.close()
    finally:
        os.close(read_end)
        os.close(write_end)


class Streams:
    """A reading end, a writing end and a ring, of which processes that are forked now have their part."""

    def __init__(self) -> None:
        self.fds = [*os.pipe2(os.O_CLOEXEC), make_ring("web")]
        append(self.fds[2], b"kept\n")
        self.record = [[fd, identity(fd)] for fd in self.fds]

    def leave(self, *indices: int) -> None:
        for index, fd in enumerate(self.fds):
            if index not in indices:
                os.close(fd)


def works(fds: list[int]) -> bool:
    """What is written at one end comes out at the other."""
    os.write(fds[1], b"x")
    try:
        return os.get_blocking(fds[1]) and os.read(fds[0], 9) == b"x"
    finally:
        for fd in fds:
            os.close(fd)


def test_a_service_and_the_log_worker_have_it_together() -> None:
    streams = Streams()
    with process(lambda: streams.leave(1)) as service, process(lambda: streams.leave(0, 2)) as worker:
        streams.leave()
        fds = Salvage(service, [Holder(worker)], {}).streams(streams.record)
        assert [identity(fd) for fd in fds] == [name for _, name in streams.record]
        assert since(fds[2]).data == b"kept\n"
        assert works(fds)


def test_where_the_service_is_gone_the_worker_has_enough() -> None:
    streams = Streams()
    with process(lambda: streams.leave(0, 2)) as worker:
        streams.leave()
        fds = Salvage(None, [Holder(worker)], {}).streams(streams.record)
        assert since(fds[2]).data == b"kept\n"
        assert works(fds)


def test_where_the_worker_is_gone_the_service_can_go_on_writing() -> None:
    streams = Streams()
    with process(lambda: streams.leave(1)) as service:
        streams.leave()
        fds = Salvage(service, [], {}).streams(streams.record)
        assert since(fds[2]).data == b""
        assert works(fds)


def test_where_nobody_has_any_of_it_there_is_none() -> None:
    streams = Streams()
    with process(streams.leave) as service:
        streams.leave()
        assert Salvage(service, [], {}).streams(streams.record) == []
        assert Salvage(None, [], {}).streams(streams.record) == []


def test_a_stream_of_the_journal_is_made_anew() -> None:
    assert Salvage(None, [], {}).streams([]) == []
    assert Salvage(None, [], {}).streams([[5, "socket:[1]"]]) == []


def test_a_descriptor_comes_from_the_process_else_from_the_pool_and_once() -> None:
    event, other = os.eventfd(0), os.eventfd(0)
    name, other_name = identity(event), identity(other)
    with process(lambda: os.close(other)) as service:
        pool = {name: event, other_name: other}
        salvage = Salvage(service, [], pool)
        found = salvage.descriptor([99, name])
        assert found not in (None, event)
        assert pool == {name: event, other_name: other}
        assert salvage.descriptor([99, other_name], "3") == other
        assert salvage.descriptor([99, other_name], "3") is None
        assert salvage.descriptor([99, ""], "stdin") is None
        for fd in (event, other, found):
            assert fd is not None
            os.close(fd)
