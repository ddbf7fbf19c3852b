"""Clients that wait at a socket, and places in the queue whose clients have gone."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.loop.loop import Loop
from supervisor.process.children import Children
from supervisor.process.held_descriptors import Opened, open_descriptor
from supervisor.process.waiting import Waiting, are_unserved, look
from tests.daemon import wait_until

SLOT = 3


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(stack: ExitStack, spec: Descriptor) -> Opened:
    found = open_descriptor(spec)
    stack.callback(os.close, found.fd)
    return found


def tcp(stack: ExitStack) -> Opened:
    return opened(stack, Descriptor("tcp", "3", host="127.0.0.1", port=0, backlog=100))


def seen(place: Opened) -> Waiting:
    """Look in a loop of its own."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    children = Children(lambda _pid, exit: None)
    found: list[Waiting] = []

    def done(who: Waiting) -> None:
        found.append(who)
        loop.stop()

    try:
        look(loop, children, {SLOT: place}, done)
        if not found:
            loop.run()
        wait_until(lambda: _all_reaped(children), "the end of the child")
    finally:
        loop.close()
    assert not errors
    return found[0]


def _all_reaped(children: Children) -> bool:
    children.reap()
    return not children.pids()


def come(stack: ExitStack, place: Opened) -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_UNIX if place.spec.path else socket.AF_INET))
    client.connect(place.spec.path or ("127.0.0.1", place.port))
    return client


def accept(place: Opened) -> None:
    with socket.socket(fileno=os.dup(place.fd)) as listener:
        listener.accept()[0].close()


def reset(stack: ExitStack, place: Opened) -> None:
    client = come(stack, place)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_ready(place: Opened) -> bool:
    return bool(select.select([place.fd], [], [], 0)[0])


def test_a_tcp_client_that_waits_is_the_same_until_it_is_accepted(stack: ExitStack) -> None:
    place = tcp(stack)
    assert seen(place) == {}
    come(stack, place)
    before = seen(place)
    come(stack, place)
    assert are_unserved(before, seen(place))
    accept(place)
    assert not are_unserved(before, seen(place))


def test_a_process_that_accepts_a_connection_that_was_reset_has_served_it(stack: ExitStack) -> None:
    place = tcp(stack)
    for _ in range(3):
        reset(stack, place)
    come(stack, place)
    wait_until(lambda: is_ready(place), "the clients")
    before = seen(place)
    assert len(before[SLOT]) == 4
    assert are_unserved(before, seen(place))
    accept(place)
    assert not are_unserved(before, seen(place))


def test_the_same_of_a_unix_socket(stack: ExitStack, tmp_path: Path) -> None:
    place = opened(stack, Descriptor("stream", "3", path=str(tmp_path / "socket"), backlog=100))
    for _ in range(3):
        come(stack, place).close()
    before = seen(place)
    assert are_unserved(before, seen(place))
    accept(place)
    assert not are_unserved(before, seen(place))


def test_more_clients_of_a_unix_socket_than_the_kernel_names_count_as_nobody(stack: ExitStack, tmp_path: Path) -> None:
    place = opened(stack, Descriptor("stream", "3", path=str(tmp_path / "socket"), backlog=2600))
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    if limit < 2600:
        pytest.skip("needs net.core.somaxconn of 2600")
    for _ in range(2500):
        come(stack, place).close()
    before = seen(place)
    assert before == {SLOT: frozenset()}
    assert not are_unserved(before, before)


def test_a_datagram_of_a_unix_socket_is_told_from_the_next_one(stack: ExitStack, tmp_path: Path) -> None:
    place = opened(stack, Descriptor("dgram", "3", path=str(tmp_path / "socket")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        for text in (b"one", b"two"):
            client.sendto(text, place.spec.path)
    before = seen(place)
    assert are_unserved(before, seen(place))
    os.read(place.fd, 100)
    assert not are_unserved(before, seen(place))
