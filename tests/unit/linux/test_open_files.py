"""The names of descriptors, here and in another process."""

from __future__ import annotations

import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.linux import open_files as open_files_module
from supervisor.linux.open_files import identity, is_unique, open_files
from tests import fuse
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import child_process, wait_exit, wait_readable


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """All descriptors that a test opens are closed after it."""
    before = open_numbers()
    yield
    for fd in open_numbers() - before:
        os.close(fd)


def eventfd() -> int:
    return os.eventfd(0)


def memfd() -> int:
    return os.memfd_create("same")


def pidfd() -> int:
    return os.pidfd_open(os.getpid())


def udp() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


def unix() -> int:
    return socket.socket(socket.AF_UNIX).detach()


@pytest.mark.parametrize("make", [memfd, udp, unix])
def test_two_of_a_kind_differ_and_a_duplicate_does_not(make: Callable[[], int]) -> None:
    one, other = make(), make()
    assert identity(one) != identity(other)
    assert identity(os.dup(one)) == identity(one)


def test_the_ends_of_a_pipe_differ() -> None:
    (r1, w1), (r2, w2) = os.pipe(), os.pipe()
    assert len({identity(fd) for fd in (r1, w1, r2, w2)}) == 4
    assert identity(r1).startswith("pipe:")
    assert identity(r1).endswith(" r")
    assert identity(w1).endswith(" w")


def test_pidfds_are_told_apart_by_their_process() -> None:
    with child_process(lambda: select.select([], [], [])) as pid:
        assert identity(pidfd()) == identity(pidfd())
        assert identity(pidfd()) != identity(os.pidfd_open(pid))


def test_a_file_by_itself_and_how_it_is_open(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    other.touch()
    names = {
        (path, flags): identity(os.open(path, flags)) for path in (one, other) for flags in (os.O_RDONLY, os.O_RDWR)
    }
    assert len(set(names.values())) == 4
    again = os.open(one, os.O_RDONLY)
    assert identity(again) == names[one, os.O_RDONLY]


def test_a_file_that_is_renamed_or_removed_is_still_itself_and_its_successor_is_not(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    fd = os.open(path, os.O_WRONLY)
    name = identity(fd)
    path.rename(tmp_path / "log.1")
    path.touch()
    assert identity(fd) == name
    assert identity(os.open(path, os.O_WRONLY)) != name
    (tmp_path / "log.1").unlink()
    assert identity(fd) == name


def test_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    both = os.open(path, os.O_RDWR)
    assert len({identity(reader), identity(writer), identity(both)}) == 3


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff\n new")
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    assert identity(fd) == identity(os.dup(fd))


def test_what_is_not_open_has_no_identity() -> None:
    with pytest.raises(FileNotFoundError):
        identity(987654)
    with pytest.raises(FileNotFoundError):
        identity(0, 2**22 + 1)
    assert open_files(2**22 + 1) == {}


@contextmanager
def another_with(*fds: int) -> Iterator[tuple[int, list[int]]]:
    """A process that has these descriptors under other numbers: its pid, and the numbers."""
    numbers = [fd + 500 for fd in fds]
    read_end, write_end = os.pipe()

    def hold() -> None:
        for fd, number in zip(fds, numbers, strict=True):
            os.dup2(fd, number)
            os.close(fd)
        os.write(write_end, b"!")
        select.select([], [], [])

    with child_process(hold) as pid:
        wait_readable(read_end)
        yield pid, numbers


def test_another_process_calls_it_the_same() -> None:
    with tempfile.TemporaryFile() as file:
        fds = [*os.pipe(), eventfd(), memfd(), pidfd(), udp(), unix(), os.dup(file.fileno())]
        with another_with(*fds) as (pid, numbers):
            names = [identity(fd) for fd in fds]
            assert [identity(number, pid) for number in numbers] == names
            found = open_files(pid)
            assert all(number in found[name] for number, name in zip(numbers, names, strict=True))
            assert not any(fd in found.get(name, []) for fd, name in zip(fds, names, strict=True))


def test_a_process_that_has_ended_has_none() -> None:
    with child_process(lambda: os._exit(0)) as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert open_files(pid) == {}
        with pytest.raises(OSError, match=str(pid)):
            identity(0, pid)
        assert wait_exit(pid) == 0


def test_what_cannot_be_told_apart_has_one_name() -> None:
    """Descriptors of an epoll or eventfd have no identity here, which callers must know."""
    with select.epoll() as one, select.epoll() as other:
        assert identity(one.fileno()) == identity(other.fileno())
        assert not is_unique(identity(one.fileno()))
    assert identity(eventfd()) == identity(eventfd())
    assert not is_unique(identity(eventfd()))
    assert all(is_unique(identity(fd)) for fd in (*os.pipe(), memfd(), unix()))


def test_a_file_system_that_does_not_answer_is_not_asked() -> None:
    if not fuse.is_possible():
        pytest.skip("needs FUSE")
    with fuse.unanswering(fuse.GETATTR) as path:

        def look() -> str:
            fd = os.open(path, os.O_RDWR)
            return identity(fd) + identity(fd, os.getpid())

        with child_process(look) as pid:
            assert wait_exit(pid) == 0


def test_no_fdinfo_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoll has one of hundreds of thousands of lines, made under a lock that its maker may hold."""
    opened: list[str] = []
    monkeypatch.setattr("builtins.open", lambda path, *_args, **_keys: opened.append(path))
    with select.epoll() as epoll:
        for process in (None, os.getpid()):
            identity(epoll.fileno(), process)
            identity(eventfd(), process)
    assert opened == []


def test_so_many_descriptors_of_another_process_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files_module, "MOST", 5)
    for _ in range(10):
        pidfd()
    assert sum(map(len, open_files(os.getpid()).values())) <= 5
