"""Processes that hang in an execve: nobody waits for them, and nothing is done to them that is not proved."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor.linux import glance as glance_module
from supervisor.linux.file_status import number_of_process
from supervisor.linux.glance import CONTENT, glance
from supervisor.linux.open_files import identity, open_files
from supervisor.manager.unit import Unit
from supervisor.process import pids
from supervisor.process.network_namespace import namespace_of_process
from supervisor.process.pids import (
    hold_all,
    look_at_all,
    read_process,
    signal_processes,
    start_time,
    start_time_before_exec,
    still_living,
)
from supervisor.process.run import Run
from supervisor.process.survivor import find_survivor, is_same
from tests import fuse
from tests.hung import executing
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import HELD_UP, wait_until

pytestmark = pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    glance_module._waited.clear()
    before = open_numbers()
    yield
    assert open_numbers() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@contextmanager
def at_once() -> Iterator[None]:
    before = time.monotonic()
    yield
    assert time.monotonic() - before < HELD_UP


def test_what_a_process_keeps_to_itself_keeps_nobody() -> None:
    with executing() as (pid, started, *_), at_once():
        process = read_process(pid)
        assert process is not None
        assert process.started < 0
        assert (process.parent, process.session, process.group) == (os.getpid(), os.getsid(pid), os.getpgid(pid))
        assert start_time(pid) not in (started, start_time(pid))
        assert open_files(pid) == {}
        assert namespace_of_process(pid) is None
        glance_module._waited.clear()
        with pytest.raises(TimeoutError):
            identity(0, pid)


def test_others_are_seen_beside_it() -> None:
    with executing() as (pid, *_), at_once():
        seen = {process.pid: process.started for process in look_at_all()}
        assert seen[os.getpid()] == start_time_before_exec(os.getpid())
        assert seen[pid] < 0


def test_many_take_little_longer_than_one() -> None:
    with executing(20) as (pid, _started, others, _release), at_once():
        requests = [f"{CONTENT}/proc/{child}/stat" for child in (*others, pid, os.getpid())]
        *answers, own = glance(requests)
        assert set(answers) <= {errno.ETIMEDOUT, errno.EBUSY}
        assert isinstance(own, bytes)


def test_it_is_not_signalled_by_its_start_time_until_it_shows_that() -> None:
    with executing(2) as (pid, started, others, release):
        with at_once():
            assert still_living({pid: started}) == {pid: started}
            assert hold_all({pid: started}) == {}
            signal_processes({pid: started, **{other: -1 for other in others}}, signal.SIGKILL)
        release()
        wait_until(lambda: start_time(pid) == started)
        assert all(os.waitpid(each, os.WNOHANG) == (0, 0) for each in (pid, *others))
        signal_processes({pid: started}, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_one_that_an_earlier_spawnd_has_left_is_known_by_its_number() -> None:
    with executing() as (pid, started, *_), at_once():
        number = number_of_process(pid)
        if not number:
            pytest.skip("needs Linux 6.9")
        run = find_survivor(pid, started, number)
        assert run is not None
        assert not run.in_doubt
        run.close()
        assert find_survivor(pid, started, number + 1) is None


def test_without_a_number_it_is_in_doubt_and_signalled_once_it_is_not() -> None:
    with executing() as (pid, started, _others, release):
        with at_once():
            run = find_survivor(pid, started)
            assert run is not None
            assert run.in_doubt
            run.kill(signal.SIGTERM)
            run.kill_group()
            run.kill(signal.SIGTERM)
            assert is_same(run.pidfd, pid, started) is None
        release()
        wait_until(lambda: is_same(run.pidfd, pid, started) is True)
        assert is_same(run.pidfd, pid, started + 1) is False
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        run.be_sure()
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        run.close()


def test_its_memory_and_time_are_known() -> None:
    with executing() as (pid, *_), at_once():
        unit = object.__new__(Unit)
        unit.cgroup, unit.run = None, Run(pid)
        memory, cpu = unit.usage()
        assert memory is not None
        assert cpu is not None


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENFILE])
def test_a_process_at_which_nobody_can_look_may_live(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pids, "glance", lambda requests: [number] * len(requests))
    process = read_process(os.getpid())
    assert process is not None
    assert process.started < 0


def test_a_process_that_has_ended_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pids, "glance", lambda requests: [errno.ESRCH] * len(requests))
    assert read_process(os.getpid()) is None
