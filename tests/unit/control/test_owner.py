"""The socket for root and spawnd's own user: nobody else keeps them from it."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.control.server import OWNER_MODE, Server
from supervisor.notify import safe_close
from supervisor.places import owner_socket
from tests import fuse
from tests.unit.control.bench import Bench, Client
from tests.unit.waiting import child_process, wait_until

needs_fuse = pytest.mark.skipif(not fuse.is_possible(), reason="needs root and /dev/fuse")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def owner(bench: Bench) -> Iterator[Server]:
    """A second server beside that of the bench."""
    path = owner_socket(bench.path)
    server = Server(bench.loop, bench.core, path, bench.reaper, mode=OWNER_MODE)
    yield server
    server.close()


@contextmanager
def poisonous() -> Iterator[Callable[[socket.socket], None]]:
    """Sends a descriptor whose last close waits until the end: its epoll waits for the server of a file."""
    ours, theirs = socket.socketpair()

    def hang() -> None:
        path = theirs.recv(1000)
        file = os.open(path, os.O_RDWR)
        epoll = select.epoll()
        for _ in range(8):
            fd = os.eventfd(0)
            epoll.register(fd, 0)
            socket.send_fds(theirs, [b"x"], [fd])
            os.close(fd)
        epoll.register(file, select.EPOLLIN)  # does not come back

    def send(client: socket.socket) -> None:
        _message, (fd,), _flags, _ = socket.recv_fds(ours, 1, 1)
        socket.send_fds(client, [b"x"], [fd])
        os.close(fd)

    with ours, theirs, child_process(hang) as pid, fuse.unanswering(fuse.POLL) as path:
        ours.send(path.encode())
        wait_until(lambda: "fuse" in Path(f"/proc/{pid}/stack").read_text())
        yield send


@needs_fuse
def test_closes_that_hang_keep_the_owner_from_nothing(
    bench: Bench, owner: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(safe_close, "MOST", 2)
    queue = bench.server._closing
    with poisonous() as send:
        for _ in range(3):
            send(bench.connect().sock)
        bench.run_until(lambda: not queue.has_room)
        late = bench.connect()
        late.call("io.spawnd.GetVersion")
        client = Client(bench)
        client.sock.connect(owner_socket(bench.path))
        client.sock.setblocking(False)
        client.call("io.spawnd.GetVersion")
        assert "version" in client.reply()["parameters"]
        assert late.is_silent()
    bench.run_until(lambda: bench.reaper.look() and not queue)
    assert "version" in late.reply()["parameters"]
    assert "no clients are taken in: 2 connections hang" in caplog.text


@needs_root
def test_nobody_else_can_connect(bench: Bench, owner: Server) -> None:
    path = owner_socket(bench.path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def connect() -> None:
        os.setresuid(1234, 1234, 1234)
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(PermissionError):
            sock.connect(path)
        os._exit(7)

    with child_process(connect) as pid:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == 7

