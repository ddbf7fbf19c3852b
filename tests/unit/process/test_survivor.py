"""Processes that nobody here has started: found by pid and start time, relieved of their descriptors."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from supervisor.linux import pipe_call
from supervisor.linux.descriptors import Order, kcmp_files
from supervisor.linux.open_files import identity
from supervisor.notify.untrusted import MAX_DESCRIPTORS, LocalFileSystems
from supervisor.process import pids
from supervisor.process.pids import read_process, start_time
from supervisor.process.run import PIDFD_SIGNAL_PROCESS_GROUP, Role
from supervisor.process.survivor import MOST_SAME, Likely, find_survivor, has_ended
from tests import held_pipe
from tests.unit.closing import fetcher_of_tests, files_of
from tests.unit.process.family import Family, family, family_with_chosen_pids, next_pid, wait_gone
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.found import survivor
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import HELD_UP, child_process, wait_exit, wait_readable, wait_until

# main ends, and another thread lives on
THREADED = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(100000,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """All opened descriptors are closed again, by the code or by the test."""
    before = open_numbers()
    yield
    assert open_numbers() == before


# finding


def test_one_that_lives_is_found() -> None:
    with survivor() as run:
        assert (run.role, run.error_fd, run.ready_fd) == (Role.MAIN, -1, -1)
        assert not os.get_inheritable(run.pidfd)
        assert not has_ended(run.pidfd)
        run.kill(signal.SIGKILL)
        assert wait_exit(run.pid) == -signal.SIGKILL
        assert has_ended(run.pidfd)


def test_another_with_its_pid_is_not_it() -> None:
    with survivor() as run:
        assert find_survivor(run.pid, run.started - 1) is None
        assert find_survivor(run.pid, run.started + 1) is None


@pytest.mark.parametrize("pid", [2**22 + 1, 0, -1])
def test_where_there_is_none(pid: int) -> None:
    assert find_survivor(pid, 1) is None


def test_a_zombie_is_none() -> None:
    with child_process(lambda: os._exit(0)) as pid:
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert find_survivor(pid, start_time(pid)) is None


def test_one_whose_first_thread_has_ended_lives() -> None:
    """`/proc` calls it a zombie; taken for dead it would run twice."""
    with subprocess.Popen([sys.executable, "-c", THREADED]) as process:
        try:
            wait_until(lambda: ") Z " in Path(f"/proc/{process.pid}/stat").read_text())
            found = read_process(process.pid)
            assert found is not None
            assert found.state == "S", "neither are the processes of a service that are like it"
            run = find_survivor(process.pid, start_time(process.pid))
            assert run is not None
            run.kill_group()
            wait_until(lambda: has_ended(run.pidfd))
            run.close()
        finally:
            process.kill()


@needs_root
def test_a_pid_that_was_used_again_is_a_stranger_s() -> None:
    def check(_family: object) -> bool:
        before = os.fork()
        if before == 0:
            signal.pause()
        started = start_time(before)
        os.kill(before, signal.SIGKILL)
        os.waitpid(before, 0)
        ticks = start_time(os.getpid())
        wait_until(lambda: _fresh_start_time() > started > ticks - 1)
        next_pid(before)
        again = os.fork()
        if again == 0:
            signal.pause()
        assert again == before
        return find_survivor(again, started) is None and start_time(again) != started

    assert family_with_chosen_pids(check)


def _fresh_start_time() -> int:
    """When a process that is forked now has been started."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    started = start_time(pid)
    os.waitpid(pid, 0)
    return started


# signals through the pidfd


def test_it_is_signalled_and_nobody_who_has_its_pid_later() -> None:
    with survivor() as run:
        run.kill(signal.SIGTERM)
        assert wait_exit(run.pid) == -signal.SIGTERM
        run.kill(signal.SIGTERM)
        run.kill_group()


@pytest.fixture(params=["now", "before Linux 6.9"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the kernel kills the group that a pidfd belongs to, or all processes have to be looked through."""
    if request.param == "now":
        return
    send = signal.pidfd_send_signal

    def refuse_flags(pidfd: int, signum: int, info: None = None, flags: int = 0) -> None:
        if flags:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        send(pidfd, signum)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse_flags)


both_kernels = pytest.mark.usefixtures("_kernel")


@both_kernels
def test_one_without_a_group_of_its_own_is_killed_alone() -> None:
    """Caught before it made its session: the group is that of who started it."""
    with survivor() as run:
        assert os.getpgid(run.pid) == os.getpgid(0)
        run.kill_group()
        assert wait_exit(run.pid) == -signal.SIGKILL


@both_kernels
def test_its_group_dies_with_it() -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def lead() -> None:
        os.setsid()
        if os.fork() == 0:
            signal.pause()

    with survivor(lead) as run:
        os.close(write_end)
        run.kill_group()
        wait_readable(read_end)
        assert os.read(read_end, 1) == b"", "the end of all who had the other end"
        wait_exit(run.pid)
    os.close(read_end)


@both_kernels
def test_its_group_dies_after_it() -> None:
    def check(family: Family) -> None:
        leader, *members = family.start(session=True, below=2)
        run = find_survivor(leader, start_time(leader))
        assert run is not None
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        run.kill_group()
        wait_gone(family, *members)
        run.close()

    family(check)


def test_nobody_else_is_looked_at_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts have ten thousand processes, and all services may be stopped at once."""

    def look() -> NoReturn:
        raise AssertionError("looked through all processes")

    with survivor(os.setsid) as run:
        try:
            signal.pidfd_send_signal(run.pidfd, 0, None, PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError as error:
            pytest.skip(f"before Linux 6.9: {error}")
        monkeypatch.setattr(pids, "look_at_all", look)
        run.kill_group()
        assert wait_exit(run.pid) == -signal.SIGKILL
        run.kill_group()


@needs_root
@both_kernels
def test_the_group_of_a_stranger_with_its_number_lives_on() -> None:
    def check(family: Family) -> list[bool]:
        (leader,) = family.start(session=True)
        run = find_survivor(leader, start_time(leader))
        assert run is not None
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        wait_until(lambda: _fresh_start_time() > run.started)
        next_pid(leader)
        strangers = family.start(session=True, below=1)
        assert strangers[0] == leader
        run.kill_group()
        run.close()
        return family.alive(*strangers)

    assert family_with_chosen_pids(check) == [True, True]


# what it holds


def test_a_descriptor_is_found_at_its_number_moved_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    other = os.eventfd(0)
    name = identity(theirs.fileno())

    def move() -> None:
        os.dup2(theirs.fileno(), 700)
        os.dup2(other, 701)
        os.close(theirs.fileno())

    with ours, theirs, survivor(move) as run:
        for likely in (700, 701, 5000, -1):
            fd = files_of(run).duplicate(name, [likely])
            assert fd is not None
            assert not os.get_inheritable(fd)
            assert identity(fd) == name
            with socket.socket(fileno=fd) as again:
                again.send(b"x")
                assert ours.recv(1) == b"x"
        fd = files_of(run).duplicate(identity(other), [700])
        assert fd is not None, "another file is on the number that it had"
        os.close(fd)
        assert files_of(run).duplicate("socket:[1]", [700]) is None
    os.close(other)


def test_a_closed_descriptor_is_not_found() -> None:
    read_end, write_end = os.pipe()
    with survivor(lambda: os.close(read_end)) as run:
        files = files_of(run)
        assert files.duplicate(identity(read_end), [read_end]) is None
        fd = files.duplicate(identity(write_end), [read_end])
        assert fd is not None
        os.close(fd)
    os.close(read_end)
    os.close(write_end)


def test_one_that_has_ended_holds_nothing() -> None:
    read_end, write_end = os.pipe()
    with survivor() as run:
        files = files_of(run)
        fd = files.duplicate(identity(read_end))
        assert fd is not None
        os.close(fd)
        run.kill(signal.SIGKILL)
        assert os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
        assert files.duplicate(identity(read_end), [read_end]) is None
        wait_exit(run.pid)
        assert files.duplicate(identity(read_end), [read_end]) is None
    os.close(read_end)
    os.close(write_end)


def test_what_cannot_be_told_apart_is_not_given() -> None:
    """Of two epolls one could be the other; of one alone there is no doubt."""
    with select.epoll() as one:
        name = identity(one.fileno())
        with survivor() as run:
            fd = files_of(run).duplicate(name)
            assert fd is not None
            os.close(fd)
        with select.epoll(), survivor() as run:
            assert files_of(run).duplicate(name) is None


@pytest.mark.parametrize(("more", "is_found"), [(1, True), (MOST_SAME - 1, True), (MOST_SAME, False)])
def test_descriptors_that_share_one_file_are_compared_as_duplicates(more: int, is_found: bool) -> None:
    with select.epoll() as one:
        duplicates = [os.dup(one.fileno()) for _ in range(more)]
        with survivor() as run:
            for duplicate in duplicates:
                os.close(duplicate)
            fd = files_of(run).duplicate(identity(one.fileno()))
            assert (fd is not None) == is_found
            if fd is not None:
                assert kcmp_files(fd, one.fileno()) is Order.EQUAL
                os.close(fd)


@pytest.mark.parametrize("count", [1, MAX_DESCRIPTORS + 2])
def test_descriptors_that_were_fetched_ahead_need_no_process(count: int) -> None:
    """From two processes, in more than a message, with numbers that are closed or belong to other files."""
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(count)]
    with survivor() as one, survivor(lambda: os.close(pipes[0][1])) as other:
        both = (files_of(one), files_of(other))
        right = [Likely(files, end, identity(end)) for pipe in pipes for files, end in zip(both, pipe, strict=True)]
        moved = Likely(both[0], pipes[0][0], identity(pipes[0][1]))
        fetcher_of_tests().fetch_ahead([moved, *right])
        for run in (one, other):
            run.kill(signal.SIGKILL)
            wait_exit(run.pid)
        assert both[0].duplicate(moved.identity, [moved.number]) is None
        found = [files.duplicate(name, [number]) for files, number, name in right[:2]]
        assert [fd is not None for fd in found] == [True, False]
        assert found[0] is not None
        assert identity(found[0]) == right[0].identity
        os.close(found[0])
        for files in both:
            files.close()
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)


def test_a_file_that_must_not_be_held_is_not_fetched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFileSystems, "have_all", lambda _self, seen: not any(one.link == "/" for one in seen))
    root = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    ours, theirs = socket.socketpair()
    with ours, theirs, survivor() as run:
        files = files_of(run)
        likely = [Likely(files, fd, identity(fd)) for fd in (theirs.fileno(), root)]
        fetcher_of_tests().fetch_ahead(likely)
        fd = files.duplicate(likely[0].identity, [likely[0].number])
        assert fd is not None, "fetched alone, later"
        assert files.duplicate(likely[1].identity, [likely[1].number]) is None
        os.close(fd)
    os.close(root)


@needs_root
def test_what_may_not_be_had_is_not_had() -> None:
    """A spawnd of an ordinary user, and a service that has become somebody else."""
    read_end, write_end = os.pipe()
    name = identity(read_end)

    def check() -> bool:
        with survivor() as run:
            os.setresgid(65534, 65534, 0)
            os.setresuid(65534, 65534, 0)
            try:
                return files_of(run).duplicate(name, [read_end]) is None
            finally:
                os.setresuid(0, 0, 0)

    assert in_child(check)
    os.close(read_end)
    os.close(write_end)


# the pipe on which it says that it is ready


def test_the_other_end_of_its_pipe_is_had_with_what_it_said() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"\n")
    with survivor() as run:
        os.close(read_end)
        fd = files_of(run).reading_end(write_end)
        assert fd >= 0
        assert not os.get_inheritable(fd)
        run.ready_fd = fd
        assert run.said_ready(os.read) is True
        assert run.said_ready(os.read) is False
        os.close(fd)
    os.close(write_end)


@pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")
def test_the_other_end_of_a_pipe_that_is_kept_is_not_waited_for() -> None:
    read_end, write_end = os.pipe()
    with survivor() as run, held_pipe.held(write_end):
        before = time.monotonic()
        assert files_of(run).reading_end(write_end) == -1
        assert time.monotonic() - before < HELD_UP
    wait_until(lambda: pipe_call._left[-1].has_ended(0))
    pipe_call._left.clear()
    os.close(read_end)
    os.close(write_end)


def test_what_is_no_pipe_has_no_other_end() -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    with survivor() as run:
        assert [files_of(run).reading_end(number) for number in (null, 987654, -1)] == [-1, -1, -1]
    os.close(null)


@needs_root
def test_without_a_number_for_it_a_descriptor_stays_where_it_is() -> None:
    read_end, write_end = os.pipe()
    wanted = identity(read_end)
    with survivor() as run:
        files = files_of(run)
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, usual[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                files.duplicate(wanted, [read_end])
            with pytest.raises(OSError, match="Too many open files"):
                files_of(run).duplicate(wanted)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        fd = files_of(run).duplicate(wanted, [read_end])
        assert fd is not None
    for each in (fd, read_end, write_end):
        os.close(each)
