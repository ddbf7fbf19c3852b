"""Reading from a peer that sends descriptors."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor.varlink.connection import CHUNK, read_out_of_band_inline, receive
from supervisor.varlink.messages import Malformed
from tests.unit.varlink.lingering import pass_on

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    read_out_of_band_inline(ours)
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


@pytest.mark.parametrize("flags", [0, socket.MSG_OOB])
def test_descriptors_are_not(pair: Pair, flags: int) -> None:
    """Send an end of a connection; the other end notices when it is closed."""
    ours, theirs = pair
    mine, sent = socket.socketpair()
    mine.setblocking(False)
    with mine:
        if not flags:
            theirs.sendall(b"a")
        pass_on(theirs, sent, b"b", flags)
        theirs.sendall(b"c")
        for _ in range(3):
            with pytest.raises(Malformed, match="descriptors are not taken"):
                receive(ours)
        with pytest.raises(BlockingIOError):
            mine.recv(1)
        ours.close()
        assert mine.recv(1) == b""


def test_a_descriptor_out_of_band_behind_bytes_is_not_taken_with_them(pair: Pair) -> None:
    ours, theirs = pair
    mine, sent = socket.socketpair()
    mine.setblocking(False)
    with mine:
        theirs.sendall(b"abc")
        pass_on(theirs, sent, b"d", socket.MSG_OOB)
        theirs.sendall(b"e")
        assert receive(ours) == b"abc"
        with pytest.raises(Malformed, match="descriptors are not taken"):
            receive(ours)
        with pytest.raises(BlockingIOError):
            mine.recv(1)
