"""Closing what another process made."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.linux.inotify import IN_CLOEXEC, inotify_init1
from supervisor.notify import safe_close, untrusted
from supervisor.notify.safe_close import MOST_LEFT, Closer, ClosingQueue, PidfdReaper
from tests import fuse
from tests.unit.closing import Reaper, Stopped
from tests.unit.process.forked import open_numbers
from tests.unit.varlink.lingering import LINGER, lingering, pass_on
from tests.unit.waiting import checked_loop, child_process, run_until, wait_exit, wait_readable, wait_until

needs_fuse = pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    before = open_numbers()
    reaper = Reaper()
    yield reaper
    reaper.settle()
    assert open_numbers() == before


@pytest.fixture
def clock() -> Stopped:
    return Stopped()


@pytest.fixture
def closer(reaper: Reaper, clock: Stopped) -> Closer:
    return Closer(clock, reaper)


def test_a_socket_that_lingers_is_waited_for_by_nobody(closer: Closer, reaper: Reaper) -> None:
    started = time.monotonic()
    with lingering() as sock:
        closer.close([sock.detach()])
        reaper.settle()
        assert time.monotonic() - started < LINGER / 2


def test_nor_is_one_on_its_way_in_another(closer: Closer, reaper: Reaper) -> None:
    started = time.monotonic()
    with lingering() as inner:
        outer, peer = socket.socketpair()
        pass_on(peer, inner)
        peer.close()
        closer.close([outer.detach()])
        reaper.settle()
        assert time.monotonic() - started < LINGER / 2


def test_a_number_that_is_no_descriptor_s_keeps_no_other_from_being_closed(closer: Closer, reaper: Reaper) -> None:
    fds = [os.eventfd(0) for _ in range(3)]
    os.close(fds[1])
    closer.close(fds)
    reaper.settle()
    assert not open_numbers() & set(fds)


def test_a_namespace_takes_no_child(closer: Closer, reaper: Reaper) -> None:
    closer.close([os.open("/proc/self/ns/ipc", os.O_RDONLY)])
    assert reaper.started == 0


def test_one_child_at_a_time_and_no_thread(closer: Closer, reaper: Reaper) -> None:
    """Whatever comes meanwhile waits for the next one."""
    threads = threading.active_count()
    for _ in range(3000):
        closer.close([os.eventfd(0)])
    assert reaper.most == 1
    assert threading.active_count() == threads
    reaper.settle()
    assert reaper.most == 1
    assert reaper.started < 10


def test_files_and_others_are_never_in_the_same_child(reaper: Reaper, closer: Closer) -> None:
    given: list[list[bool]] = []
    real = untrusted.close_elsewhere

    def look(fds: list[int]) -> int:
        given.append([os.readlink(f"/proc/self/fd/{fd}").startswith("/") for fd in fds])
        return real(fds)

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        patch.setattr(safe_close, "close_elsewhere", look)
        for _ in range(20):
            closer.close([*os.pipe(), os.open(folder, os.O_RDONLY), os.eventfd(0)])
        reaper.settle()
    assert {len(set(kinds)) for kinds in given} == {1}


def test_a_child_holds_only_what_it_was_given(reaper: Reaper) -> None:
    """A socket of ours would be kept alive by one that hangs."""
    read_end, write_end = os.pipe()
    inotify = [inotify_init1(IN_CLOEXEC) for _ in range(100)]
    pid = untrusted.close_elsewhere(inotify)
    reaper(pid, lambda: None)
    os.close(write_end)
    wait_readable(read_end)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


@needs_fuse
def test_files_of_this_process_are_no_matter_for_a_child() -> None:
    """Their copies would have to be closed, and each close of such a file waits for its server.

    Of the first 64 numbers the kernel makes copies all the same.
    """
    fds = [os.eventfd(0)]
    while fds[-1] < 64:
        fds.append(os.eventfd(0))
    with fuse.unanswering(fuse.FLUSH) as path:
        file = os.open(path, os.O_RDONLY)
        pid = untrusted.close_elsewhere(fds[:1])
        assert wait_exit(pid) == 0
    with suppress(OSError):  # the server has ended
        os.close(file)
    for fd in fds[1:]:
        os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_a_process_that_may_not_be_traced() -> None:
    """The children then begin with a copy of its table: nothing else is different."""

    def act() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        os.setresuid(1234, 1234, 1234)
        for _ in range(2):
            socket.send_fds(theirs, [b"x"], [0])
            pid, seen = untrusted.look_elsewhere(ours.fileno())
            assert seen is not None
            os.waitpid(pid, 0)
            pid, is_taken, _pidfd = untrusted.take_elsewhere(ours.fileno())
            assert is_taken
            os.waitpid(pid, 0)
            fd = os.eventfd(0)
            os.waitpid(untrusted.close_elsewhere([fd]), 0)
            assert fd not in open_numbers()
        os._exit(7)

    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(1)
    assert wait_exit(pid) == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_the_first_close_of_a_process_that_may_not_be_traced() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(1234, 1234, 1234)
            fd = os.eventfd(0)
            os.waitpid(untrusted.close_elsewhere([fd]), 0)
            os._exit(7 if fd not in open_numbers() else 8)
        finally:
            os._exit(1)
    assert wait_exit(pid) == 7


def test_room_is_told_of(reaper: Reaper, clock: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_close, "MOST", 3)
    queue = ClosingQueue(clock, reaper)
    told = []
    queue.on_room = lambda: told.append(len(queue))
    for _ in range(4):
        queue.close([os.eventfd(0)])
    assert (len(queue), queue.has_room) == (3, False)
    reaper.settle()
    assert (told, queue.has_room) == ([0], True)


def test_without_a_child_it_is_tried_again(reaper: Reaper, clock: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = ClosingQueue(clock, reaper)

    def none(_fds: list[int]) -> int:
        raise BlockingIOError

    fd = os.eventfd(0)
    with monkeypatch.context() as patch:
        patch.setattr(safe_close, "close_elsewhere", none)
        queue.close([fd])
    assert fd in open_numbers()
    (again,) = clock.timers
    again()
    assert fd not in open_numbers()


@needs_fuse
def test_a_pipe_in_an_epoll_that_hangs_hangs_nobody_here(closer: Closer, reaper: Reaper) -> None:
    """The last close of what is in an epoll takes a lock of that, which waits for the server of a file beside it."""
    ours, theirs = socket.socketpair()

    def hang() -> None:
        file = os.open(theirs.recv(1000), os.O_RDWR)
        read_end, _write_end = os.pipe()
        epoll = select.epoll()
        epoll.register(read_end, 0)
        socket.send_fds(theirs, [b"x"], [read_end])
        os.close(read_end)
        epoll.register(file, select.EPOLLIN)  # does not come back

    with ours, theirs, child_process(hang) as pid, fuse.unanswering(fuse.POLL) as path:
        ours.send(path.encode())
        _message, (fd,), _flags, _ = socket.recv_fds(ours, 1, 1)
        wait_until(lambda: "fuse" in Path(f"/proc/{pid}/stack").read_text())
        closer.close([fd])
        assert len(reaper.children) == 1
        child = next(iter(reaper.children))
        wait_until(lambda: "eventpoll" in Path(f"/proc/{child}/stack").read_text())
        closer.close([os.eventfd(0)])


@pytest.fixture
def hanging(reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The children that were to close something, and hang until the test ends."""
    children: list[int] = []

    def hang(fds: list[int]) -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        for fd in fds:
            os.close(fd)
        children.append(pid)
        return pid

    monkeypatch.setattr(safe_close, "close_elsewhere", hang)
    yield children
    for pid in children:
        if pid in reaper.children:
            os.kill(pid, signal.SIGKILL)


def test_a_child_that_hangs_is_left_to_itself_and_others_follow(
    hanging: list[int], reaper: Reaper, clock: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not without end: what one waits for may never come."""
    killed: list[int] = []
    queue = ClosingQueue(clock, reaper)
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda pid, _signum: killed.append(pid))
        for number in range(MOST_LEFT + 3):
            queue.close([os.eventfd(0)])
            assert len(hanging) == min(number + 1, MOST_LEFT + 1)
            if clock.timers:
                clock.timers.pop()()
    assert killed == hanging


def test_the_end_of_any_child_that_is_left_makes_room_for_the_next(
    hanging: list[int], reaper: Reaper, clock: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overdue one that there was no room to leave may never end."""
    queue = ClosingQueue(clock, reaper)
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda _pid, _signum: None)
        for _ in range(MOST_LEFT + 1):
            queue.close([os.eventfd(0)])
            clock.timers.pop()()
        queue.close([os.eventfd(0)])
        assert (len(queue), queue.children, len(hanging)) == (1, MOST_LEFT + 1, MOST_LEFT + 1)
    first = hanging[0]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not reaper.look() and first not in reaper.children)
    assert len(queue) == 0


def test_a_child_is_reaped_where_there_is_no_number_for_a_pidfd() -> None:
    ended: list[int] = []
    with checked_loop() as loop:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, usual[1]))
        try:
            PidfdReaper(loop, loop)(pid, lambda: ended.append(pid))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        run_until(loop, lambda: ended)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
