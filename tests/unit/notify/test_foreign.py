"""Closing what another process made."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.notify.foreign import close_foreign, is_file
from tests.unit.process.forked import open_numbers
from tests.unit.varlink.lingering import lingering, pass_on
from tests.unit.waiting import wait_until

LINGER = 60  # seconds that a close would wait


def closed(fd: int) -> bool:
    close_foreign([fd])
    return fd not in open_numbers()


def wait_closed(*fds: int) -> None:
    wait_until(lambda: not open_numbers().intersection(fds))


def test_a_socket_that_would_linger_is_closed_at_once() -> None:
    """Its peer never reads, so what was sent never gets there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
        with receiver:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, LINGER))
            sender.setblocking(False)
            with pytest.raises(BlockingIOError):
                _fill(sender)
            start = time.monotonic()
            assert closed(sender.detach())
            assert time.monotonic() - start < LINGER / 2


def _fill(sock: socket.socket) -> None:
    while True:
        sock.send(b"x" * 65536)


def test_what_the_kernel_makes_is_closed_at_once() -> None:
    read_end, write_end = os.pipe()
    fds = [read_end, write_end, os.memfd_create("a"), os.eventfd(0), os.pidfd_open(os.getpid())]
    assert not any(is_file(fd) for fd in fds)
    assert all(closed(fd) for fd in fds)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder on a file system that is not memory, which that of the other temporary files may be."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


def test_a_file_in_memory_is_closed_at_once() -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        fd = os.dup(file.fileno())
        assert not is_file(fd)
        assert closed(fd)


def test_a_file_is_closed_without_waiting_for_its_file_system(on_disk: Path) -> None:
    """A name like that of a memfd makes no memfd."""
    for fd in (os.open(on_disk, os.O_PATH), os.open(on_disk / "memfd:a (deleted)", os.O_CREAT)):
        assert is_file(fd)
        close_foreign([fd])
        wait_closed(fd)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_sockets_of_all_kinds(kind: socket.SocketKind) -> None:
    fds = [sock.detach() for sock in socket.socketpair(socket.AF_UNIX, kind)]
    close_foreign(fds)
    wait_closed(*fds)


def test_what_lingers_on_its_way_in_another_socket_is_not_waited_for() -> None:
    """The end of the outer one is the last close of the inner one."""
    start = time.monotonic()
    with lingering() as inner:
        outer, peer = socket.socketpair()
        with peer:
            pass_on(peer, inner)
        fd = outer.detach()
        close_foreign([fd])
        assert time.monotonic() - start < LINGER / 2
        wait_closed(fd)


def test_one_thread_is_enough_for_all_of_a_message(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Counted(threading.Thread):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr(threading, "Thread", Counted)
    fds = [os.open(on_disk, os.O_PATH) for _ in range(50)] + [sock.detach() for sock in socket.socketpair()]
    close_foreign(fds)
    wait_closed(*fds)
    assert len(started) == 1
