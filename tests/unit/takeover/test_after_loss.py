"""Getting back what a lost spawnd had, from the processes that have it as well."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from supervisor.definitions.service import Service
from supervisor.linux.glance import AT_ONCE
from supervisor.linux.open_files import identity
from supervisor.log.output import JournalOutputs
from supervisor.log.ring import append, make_ring, since
from supervisor.manager.host import HostFacts
from supervisor.manager.manager import Manager
from supervisor.manager.runtime import RuntimeFolder
from supervisor.notify.service_side import Sender
from supervisor.process.children import Children
from supervisor.process.leftovers import holds_one_of
from supervisor.systemd.reports import SystemdStore
from supervisor.takeover.after_loss import Salvage, Search
from tests.unit.closing import PatientCloser, files_of
from tests.unit.process.forked import open_numbers
from tests.unit.process.found import survivor
from tests.unit.program import PROGRAM
from tests.unit.waiting import checked_loop, run_until, turn


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = open_numbers()
    yield
    assert open_numbers() == before


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
    """Data written at one end comes out at the other."""
    os.write(fds[1], b"x")
    try:
        return os.get_blocking(fds[1]) and os.read(fds[0], 9) == b"x"
    finally:
        for fd in fds:
            os.close(fd)


def test_a_service_and_the_log_worker_have_it_together() -> None:
    streams = Streams()
    with survivor(lambda: streams.leave(1)) as service, survivor(lambda: streams.leave(0, 2)) as worker:
        streams.leave()
        fds = Salvage(files_of(service), [files_of(worker)], {}).streams(streams.record)
        assert [identity(fd) for fd in fds] == [name for _, name in streams.record]
        assert since(fds[2]).data == b"kept\n"
        assert works(fds)


def test_where_the_service_is_gone_the_worker_has_enough() -> None:
    streams = Streams()
    with survivor(lambda: streams.leave(0, 2)) as worker:
        streams.leave()
        fds = Salvage(None, [files_of(worker)], {}).streams(streams.record)
        assert since(fds[2]).data == b"kept\n"
        assert works(fds)


def test_where_the_worker_is_gone_the_service_can_go_on_writing() -> None:
    streams = Streams()
    with survivor(lambda: streams.leave(1)) as service:
        streams.leave()
        fds = Salvage(files_of(service), [], {}).streams(streams.record)
        assert since(fds[2]).data == b""
        assert works(fds)


def test_where_nobody_has_any_of_it_there_is_none() -> None:
    streams = Streams()
    with survivor(streams.leave) as service:
        streams.leave()
        assert Salvage(files_of(service), [], {}).streams(streams.record) == []
        assert Salvage(None, [], {}).streams(streams.record) == []


def test_a_stream_of_the_journal_is_made_anew() -> None:
    assert Salvage(None, [], {}).streams([]) == []
    assert Salvage(None, [], {}).streams([[5, "socket:[1]"]]) == []


def test_a_descriptor_comes_from_the_process_else_from_the_pool_and_once() -> None:
    event, other = os.pipe()
    name, other_name = identity(event), identity(other)
    with survivor(lambda: os.close(other)) as service:
        pool = {name: event, other_name: other}
        salvage = Salvage(files_of(service), [], pool)
        found = salvage.descriptor([99, name])
        assert found not in (None, event)
        assert pool == {name: event, other_name: other}
        assert salvage.descriptor([99, other_name], 3) == other
        assert salvage.descriptor([99, other_name], 3) is None
        assert salvage.descriptor([99, ""], 0) is None
        for fd in (event, other, found):
            assert fd is not None
            os.close(fd)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_at_a_high_number_of_many_is_looked_for_over_turns(is_there: bool) -> None:
    """A process may have as many descriptors as it likes, and the loop goes round meanwhile."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def move() -> None:
        for fd in range(100, 100 + AT_ONCE):
            os.dup2(0, fd)
        if is_there:
            os.dup2(read_end, 100 + 2 * AT_ONCE)
        os.close(read_end)

    taken: list[int] = []

    def take(fd: int) -> bool:
        taken.append(fd)
        return True

    with tempfile.TemporaryDirectory() as folder, checked_loop() as loop, survivor(move) as service:
        saved = [99, identity(read_end)]
        own = files_of(service)
        salvage = Salvage(own, [], {})
        assert salvage.descriptor(saved, 3) is None
        assert salvage.find_later(saved, "descriptor 3", take)
        closer = PatientCloser()
        store, outputs = SystemdStore(loop, Sender(""), {}), JournalOutputs(closer.close)
        host = HostFacts(False, 1024, RuntimeFolder(folder), outputs, None, store, closer, PROGRAM)
        manager = Manager(loop, Children(lambda pid, exit: None), host)
        unit = manager.add(Service("web", exec="/bin/true"))
        unit.run = service
        Search(manager, unit, own, salvage.left).begin()
        assert not taken
        turn(loop)
        assert not taken
        run_until(loop, lambda: not Salvage(own, [], {}).find_later(saved, "descriptor 3", take))  # all is looked at
        run_until(loop, lambda: bool(taken) == is_there)
        assert [identity(fd) for fd in taken] == ([saved[1]] if is_there else [])
    for fd in (read_end, write_end, *taken):
        os.close(fd)


def test_what_is_not_found_in_a_process_of_few_descriptors_is_lost() -> None:
    with survivor(lambda: None) as service:
        salvage = Salvage(files_of(service), [], {})
        assert salvage.descriptor([99, "socket:[1]"], 3) is None
        assert not salvage.find_later([99, "socket:[1]"], "descriptor 3", lambda _fd: True)
    assert not Salvage(None, [], {}).find_later([99, "socket:[1]"], "descriptor 3", lambda _fd: True)


def test_who_has_one_of_the_files_is_asked_for_a_limited_time() -> None:
    """A session may have any number of processes, each with as many descriptors as it likes."""
    read_end, write_end = os.pipe()
    times = iter([0.0, 0.4, 0.6])
    has_it = holds_one_of({identity(read_end)}, lambda: next(times))
    assert has_it(os.getpid())
    assert not has_it(os.getpid())
    os.close(read_end)
    os.close(write_end)
