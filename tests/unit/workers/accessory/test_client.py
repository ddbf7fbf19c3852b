"""The client module, with an accessory that does not do what it should."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWUSER
from tests.unit.process.forked import open_numbers
from workers.accessory.client import Accessory, RequestError, take_reply
from workers.accessory.protocol import (
    ProtocolError,
    encode_datagram,
    encode_error,
    encode_packet,
    encode_reply,
    packets,
)

ADDRESS = f"@accessory-client-{os.getpid()}"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0" + ADDRESS[1:])
        listener.listen(1)
        yield listener


def test_an_answer_that_comes_too_late_is_nobodys(listener: socket.socket) -> None:
    """It would be taken for that to the next request."""
    with Accessory(ADDRESS, timeout=0.05) as client, listener.accept()[0] as server:
        with pytest.raises(BlockingIOError):
            client.request("a", ipc=True)
        with suppress(BrokenPipeError):  # it has been left
            server.send(encode_error("about a"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            client.request("b", ipc=True)


def test_after_a_refusal_the_connection_goes_on(listener: socket.socket) -> None:
    with Accessory(ADDRESS, timeout=60) as client, listener.accept()[0] as server:
        for text in ("one", "two"):
            server.send(encode_error(text))
            with pytest.raises(RequestError, match=text):
                client.request("a", ipc=True)


@pytest.mark.parametrize(
    "reply",
    [
        encode_reply((CLONE_NEWIPC, CLONE_NEWUSER), False),
        encode_datagram([*(encode_packet(*packet) for packet in packets(encode_reply((CLONE_NEWIPC,), False)))]) + b"x",
        encode_datagram([encode_packet(2), encode_packet(0, b"no")]),
    ],
    ids=["fewer descriptors", "bad CRC", "lease and error"],
)
def test_a_bad_reply_leaves_no_descriptor_open(reply: bytes) -> None:
    before = open_numbers()
    fds = [os.memfd_create("x")]
    with pytest.raises((ProtocolError, RequestError)):
        take_reply(reply, fds)
    for fd in fds:
        os.close(fd)
    assert open_numbers() == before
