"""Ending connections with descriptors in them: children on a loop, with sockets that nobody else knows."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from supervisor.loop.loop import Loop
from tests.daemon import children
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import checked_loop, run_until
from tests.unit.workers.accessory.slow import send_packet_sockets
from workers.accessory import inbox as module
from workers.accessory.c_helpers import DISPOSED, start_disposal
from workers.accessory.entry import Accounts
from workers.accessory.inbox import Disposal, Inbox, receiver
from workers.accessory.options import Quota

pytestmark = needs_root
UID = 4711


class Connections:
    """Pairs of sockets, of which the disposal gets one each; all are closed in the end."""

    def __init__(self, loop: Loop, stack: ExitStack) -> None:
        self.loop = loop
        self.accounts = Accounts(Quota(), 4096)
        self._inbox = Inbox(lambda _fds: None)
        self.disposal = Disposal(
            loop, lambda sock: self._inbox.drain(sock, receiver(sock, is_trusted=False))
        )
        self._stack = stack

    def add(self, send: Callable[[socket.socket, bytes], None]) -> socket.socket:
        """Give one to the disposal, with a datagram in it that `send` has sent; the end of its peer."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stack.callback(theirs.close)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send(theirs, b"x")
        sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, ours.detach())
        self.disposal.take(sock, self.accounts.of(UID))
        return theirs

    @property
    def owned(self) -> int:
        """How many there are on the account of their user."""
        return self.accounts.of(UID).used["connections"]

    def wait_closed(self) -> None:
        run_until(self.loop, lambda: not self.owned)
        assert not children(os.getpid())


@pytest.fixture
def connections() -> Iterator[Connections]:
    with checked_loop() as loop, ExitStack() as stack:
        yield Connections(loop, stack)


def send_pipe(sock: socket.socket, datagram: bytes) -> None:
    read_end, write_end = os.pipe()
    socket.send_fds(sock, [datagram], [read_end, write_end])
    os.close(read_end)
    os.close(write_end)


def test_one_child_at_a_time_and_the_next_for_all_that_waited(connections: Connections) -> None:
    connections.add(send_packet_sockets)
    first = children(os.getpid())
    peers = [connections.add(send_pipe) for _ in range(DISPOSED - 1)]
    assert len(first) == 1
    assert children(os.getpid()) == first
    assert [peer.recv(1) for peer in peers] == [b""] * len(peers)  # who waits has been told already
    assert connections.owned == DISPOSED
    connections.wait_closed()


def test_many_that_wait_are_not_kept_waiting(connections: Connections) -> None:
    connections.add(send_packet_sockets)
    for _ in range(2 * DISPOSED):
        connections.add(send_pipe)
    run_until(connections.loop, lambda: connections.owned == 1)
    connections.wait_closed()


def test_a_child_that_did_not_come_to_its_end_has_a_successor(connections: Connections) -> None:
    def send_two(sock: socket.socket, datagram: bytes) -> None:
        send_packet_sockets(sock, datagram)
        send_pipe(sock, datagram)

    connections.add(send_two)
    (pid,) = children(os.getpid())
    os.kill(pid, signal.SIGKILL)  # which the first datagram alone outlives
    connections.wait_closed()


def test_without_a_process_they_wait(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([True, True, False])

    def fail_at_first(number: int, fds: list[int]) -> int:
        if next(tries):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return start_disposal(number, fds)

    monkeypatch.setattr(module, "start_disposal", fail_at_first)
    connections.add(send_packet_sockets)
    assert connections.owned == 1
    connections.wait_closed()


def test_at_the_end_there_are_children_for_all(connections: Connections) -> None:
    connections.add(send_packet_sockets)
    connections.add(send_packet_sockets)
    assert len(children(os.getpid())) == 1
    connections.disposal.finish()
    assert len(children(os.getpid())) == 2
    connections.wait_closed()
