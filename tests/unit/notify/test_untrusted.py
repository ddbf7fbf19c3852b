"""Descriptors that another process made: their kinds, and the calls on them that are safe here."""

from __future__ import annotations

import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.linux.inotify import IN_CLOEXEC, inotify_init1
from supervisor.linux.namespaces import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount2, unshare
from supervisor.linux.open_files import FILE, identity
from supervisor.notify import untrusted
from supervisor.notify.untrusted import (
    EPOLL,
    MAX_DESCRIPTORS,
    LocalFileSystems,
    Seen,
    has_other_end,
    is_closed_at_once,
    is_empty,
    is_file,
    look_elsewhere,
    may_be_polled,
    may_hold_others,
    target,
)
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.varlink.lingering import pass_on
from tests.unit.waiting import child_process, wait_exit

SO_PEEK_OFF = 42


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder on a file system that is not memory, which that of the other temporary files may be."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture
def file_systems() -> Iterator[LocalFileSystems]:
    file_systems = LocalFileSystems()
    yield file_systems
    file_systems.close()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = open_numbers()
    yield
    assert open_numbers() == before


def test_what_the_kernel_makes_is_no_file() -> None:
    fds = [*os.pipe(), os.memfd_create("a"), os.eventfd(0), os.pidfd_open(os.getpid())]
    assert not any(map(is_file, fds))
    for fd in fds:
        os.close(fd)


def test_a_file_is_one_whatever_its_name(on_disk: Path) -> None:
    """A name like that of a memfd makes no memfd."""
    for fd in (os.open(on_disk, os.O_PATH), os.open(on_disk / "memfd:a (deleted)", os.O_CREAT)):
        assert is_file(fd)
        os.close(fd)
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        assert not is_file(file.fileno()), "memory"


def test_a_file_without_a_name_is_of_unknown_origin(
    deepen: Callable[[], int], file_systems: LocalFileSystems
) -> None:
    """The kernel names no path over 4096 bytes."""
    fd = deepen()
    try:
        assert target(fd) == "/"
        assert is_file(fd)
        assert not is_closed_at_once(fd)
        assert not may_be_polled(fd)
        assert identity(fd).startswith(FILE)
        assert identity(fd, os.getpid()).startswith(FILE)
    finally:
        os.close(fd)
    assert not file_systems.have_all([Seen("/")])


def test_a_look_from_elsewhere_sees_a_file_without_a_name(deepen: Callable[[], int]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    fd = deepen()
    with ours, theirs:
        socket.send_fds(theirs, [b"x"], [fd])
        pid, seen = look_elsewhere(ours.fileno())
        wait_exit(pid)
        assert seen is not None
        status = os.fstat(fd)
        os.close(fd)
        assert [(one.link, one.has_seals) for one in seen] == [("/", False)]
        assert seen[0].device == (os.major(status.st_dev), os.minor(status.st_dev))


def test_a_child_that_waits_for_the_processor_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets more time than a child that waits for somebody else."""
    monkeypatch.setattr(untrusted, "PATIENCE_MS", 1)

    def look() -> bool:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        ours, theirs = socket.socketpair()
        with ours, theirs, child_process(spin), child_process(spin):
            socket.send_fds(theirs, [b"x"], [0] * MAX_DESCRIPTORS)
            for _ in range(50):
                pid, seen = look_elsewhere(ours.fileno())
                wait_exit(pid)
                if seen is None:
                    return False
        return True

    assert in_child(look)


def spin() -> None:
    while True:
        pass


def test_only_what_nothing_holds_up_is_closed_at_once() -> None:
    """Others can have a pipe in an epoll of theirs, memory may be gigabytes."""
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    fds = [*os.pipe(), os.memfd_create("a"), os.eventfd(0), os.pidfd_open(os.getpid()), inotify_init1(IN_CLOEXEC)]
    assert is_closed_at_once(namespace)
    assert not any(map(is_closed_at_once, fds))
    for fd in (namespace, *fds):
        os.close(fd)


def test_epolls_and_files_are_not_polled(on_disk: Path) -> None:
    epoll = select.epoll()
    fds = [epoll.fileno(), os.open(on_disk / "file", os.O_CREAT), os.memfd_create("a")]
    assert target(fds[0]) == EPOLL
    assert not any(map(may_be_polled, fds))
    pollable = [*os.pipe(), os.eventfd(0), os.pidfd_open(os.getpid()), socket.socket().detach()]
    assert all(map(may_be_polled, pollable))
    for fd in (*fds[1:], *pollable):
        os.close(fd)
    epoll.close()


@pytest.mark.parametrize(
    ("family", "kind", "yes"),
    [
        (socket.AF_UNIX, socket.SOCK_DGRAM, True),
        (socket.AF_INET, socket.SOCK_STREAM, True),
        (socket.AF_INET6, socket.SOCK_DGRAM, True),
        (socket.AF_VSOCK, socket.SOCK_STREAM, False),
        (socket.AF_NETLINK, socket.SOCK_RAW, False),
    ],
)
def test_only_sockets_whose_poll_takes_no_lock_are_polled(family: int, kind: int, yes: bool) -> None:
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        pytest.skip(f"no such sockets here: {error.strerror}")
    with sock:
        assert may_be_polled(sock.fileno()) == yes


def test_files_of_file_systems_that_are_not_mounted_here_are_not_kept(file_systems: LocalFileSystems) -> None:
    """A service has mounted them in a namespace of its own, or a server answers for them."""
    status = os.stat("/etc")
    device = os.major(status.st_dev), os.minor(status.st_dev)
    ours = Seen("/etc/passwd", device=device)
    assert file_systems.have_all([ours, Seen("/memfd:x (deleted)", has_seals=True), Seen("pipe:[1]")])
    assert not file_systems.have_all([ours, Seen("/x", device=(0, 9999), mount=1 << 40)])


@needs_root
def test_an_automount_is_known_after_a_folder_above_it_was_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_systems: LocalFileSystems
) -> None:
    """The kernel reports no change of the table of mounts then. A tmpfs stands for an automounter's."""
    monkeypatch.setattr(untrusted, "_AUTOMOUNT", "tmpfs")
    (tmp_path / "above" / "point").mkdir(parents=True)

    def look() -> list[bool]:
        unshare(CLONE_NEWNS)
        mount("", "/", flags=MS_PRIVATE | MS_REC)
        mount("test", str(tmp_path / "above" / "point"), "tmpfs")
        fd = os.open(tmp_path / "above", os.O_PATH | os.O_DIRECTORY)
        before = file_systems.have(fd, "point")
        (tmp_path / "above").rename(tmp_path / "moved")
        return [before, file_systems.have(fd, "point"), file_systems.have(fd, "another")]

    assert in_child(look) == [False, False, True]


def test_the_table_of_mounts_is_read_once(monkeypatch: pytest.MonkeyPatch, file_systems: LocalFileSystems) -> None:
    """A host may have thousands of mounts, and a service may send a thousand messages."""
    reads: list[LocalFileSystems] = []
    read = LocalFileSystems._read

    def counted(of: LocalFileSystems) -> None:
        reads.append(of)
        read(of)

    monkeypatch.setattr(LocalFileSystems, "_read", counted)
    for _ in range(100):
        assert not file_systems.have_all([Seen("/x", device=(0, 9999))])
        assert file_systems.have_all([Seen("pipe:[1]")])
    assert len(reads) == 1


@needs_root
def test_what_is_mounted_and_unmounted_later_is_known(on_disk: Path) -> None:
    def look() -> list[bool]:
        file_systems = LocalFileSystems()
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_PRIVATE | MS_REC)
        found = [file_systems.have_all([Seen("/x", device=(0, 9999))])]
        mount("tmpfs", str(on_disk), "tmpfs")
        device = os.stat(on_disk).st_dev
        seen = [Seen("/x", device=(os.major(device), os.minor(device)))]
        found.append(file_systems.have_all(seen))
        umount2(str(on_disk), MNT_DETACH)
        found.append(file_systems.have_all(seen))
        return found

    assert in_child(look) == [False, True, False]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_queue_is_empty_or_not_whatever_others_set(kind: socket.SocketKind) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        assert is_empty(ours)
        theirs.send(b"abc")
        assert not is_empty(ours)
        ours.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 3)
        assert not is_empty(ours)
        assert ours.recv(10) == b"abc"
        if kind != socket.SOCK_STREAM:
            theirs.send(b"")
            assert not is_empty(ours)
        theirs.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("before", [b"", b"x", b"x" * 100_000])
def test_descriptors_in_a_connection_are_found_behind_other_messages(kind: socket.SocketKind, before: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    mine, sent = socket.socketpair()
    with ours, theirs, mine:
        theirs.send(before)
        pass_on(theirs, sent)
        assert may_hold_others(ours)
        with pytest.raises(BrokenPipeError):
            theirs.send(b"x")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("gone", [False, True])
def test_a_connection_without_descriptors(kind: socket.SocketKind, gone: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        for message in (b"", b"x" * 1000, b"", b"y"):
            theirs.send(message)
        if gone:
            theirs.close()
        assert not may_hold_others(ours)


def test_a_connection_with_too_much_in_it_is_not_looked_at_to_the_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for _ in range(100):
            theirs.send(b"x")
        assert may_hold_others(ours)


@pytest.mark.parametrize("before", [b"", b"x", b"x" * 100_000])
@pytest.mark.parametrize("after", [b"", b"x"])
@pytest.mark.parametrize("gone", [False, True])
def test_descriptors_out_of_band_are_found(before: bytes, after: bytes, gone: bool) -> None:
    for is_held in (lambda sock: not is_empty(sock), may_hold_others):
        ours, theirs = socket.socketpair()
        mine, sent = socket.socketpair()
        mine.setblocking(False)
        with ours, theirs, mine:
            theirs.send(before)
            pass_on(theirs, sent, flags=socket.MSG_OOB)
            theirs.send(after)
            if gone:
                theirs.close()
            assert is_held(ours)
            with pytest.raises(BlockingIOError):
                mine.recv(1)


def test_what_has_another_end() -> None:
    read_end, write_end = os.pipe()
    with open(os.devnull) as null, socket.socket() as sock:
        assert [has_other_end(fd) for fd in (read_end, write_end, sock.fileno(), null.fileno())] == [True] * 3 + [False]
    os.close(read_end)
    os.close(write_end)
