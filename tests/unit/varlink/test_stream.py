"""Reading from a peer that sends descriptors."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor.varlink.errors import Malformed
from supervisor.varlink.stream import CHUNK, has_descriptors, receive
from tests.unit.varlink.lingering import pass_on

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_bytes_are_taken(pair: Pair) -> None:
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        receive(ours)
    theirs.sendall(b"x" * (CHUNK + 1))
    assert receive(ours) == b"x" * CHUNK
    theirs.sendall(b"y")
    assert receive(ours) == b"xy"
    theirs.close()
    assert receive(ours) == b""


def test_descriptors_are_not(pair: Pair) -> None:
    """What is sent is an end of a connection whose other end tells when it is closed."""
    ours, theirs = pair
    mine, sent = socket.socketpair()
    mine.setblocking(False)
    with mine:
        theirs.sendall(b"a")
        pass_on(theirs, sent, b"b")
        theirs.sendall(b"c")
        for _ in range(3):
            with pytest.raises(Malformed, match="descriptors are not taken"):
                receive(ours)
        with pytest.raises(BlockingIOError):
            mine.recv(1)
        ours.close()
        assert mine.recv(1) == b""


def test_whether_descriptors_are_behind_what_was_read(pair: Pair) -> None:
    ours, theirs = pair
    mine, sent = socket.socketpair()
    with mine:
        theirs.sendall(b"x" * 2 * CHUNK)
        pass_on(theirs, sent)
        assert has_descriptors(ours)
        with pytest.raises(BrokenPipeError):
            theirs.send(b"x")


@pytest.mark.parametrize("gone", [False, True])
def test_a_connection_without_descriptors(pair: Pair, gone: bool) -> None:
    ours, theirs = pair
    theirs.sendall(b"x" * 3 * CHUNK)
    if gone:
        theirs.close()
    ours.setblocking(True)
    assert not has_descriptors(ours)
