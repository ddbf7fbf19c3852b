"""rtnetlink: framing, answers and refusals, with the loopback device that every host has."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import closing

import pytest

from supervisor.linux import netlink
from supervisor.linux.netlink import INSTRUCTION, NetlinkSocket, attach_filter, attribute, attributes

LINK = struct.Struct("=BxHiII")


def test_attributes_are_aligned_and_come_back() -> None:
    body = b"head" + attribute(1, b"a") + attribute(2 | 0x8000, b"four") + attribute(3, b"")
    assert len(body) % 4 == 0
    assert attributes(body, 4) == {1: b"a", 2: b"four", 3: b""}


@pytest.mark.parametrize("rest", [b"\1", b"\0\0\0\0", b"\3\0\1\0"])
def test_what_is_no_attribute_ends_them(rest: bytes) -> None:
    assert attributes(attribute(1, b"abcd") + rest) == {1: b"abcd"}


def test_one_answer() -> None:
    with closing(NetlinkSocket()) as sock:
        (answer,) = sock.request(netlink.RTM_GETLINK, LINK.pack(0, 0, 1, 0, 0), 0)
    assert answer.type == netlink.RTM_NEWLINK
    assert attributes(answer.body, LINK.size)[3] == b"lo\0"


def test_all_of_a_kind() -> None:
    with closing(NetlinkSocket()) as sock:
        found = sock.dump(netlink.RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))
        again = sock.dump(netlink.RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))
    assert b"lo\0" in [attributes(message.body, LINK.size)[3] for message in found]
    assert again


def test_a_refusal_is_the_kernels() -> None:
    with closing(NetlinkSocket()) as sock:
        with pytest.raises(OSError, match="No such device") as caught:
            sock.request(netlink.RTM_GETLINK, LINK.pack(0, 0, 2**30, 0, 0), 0)
        assert caught.value.errno == errno.ENODEV
        assert sock.request(netlink.RTM_GETLINK, LINK.pack(0, 0, 1, 0, 0), 0), "the socket is usable after that"


LD_B, JEQ, RET = 0x30, 0x15, 0x06


def only(byte: bytes) -> bytes:
    """A program that lets pass what begins with this."""
    code = [(LD_B, 0, 0, 0), (JEQ, 1, 0, byte[0]), (RET, 0, 0, 0), (RET, 0, 0, 0xFFFFFFFF)]
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


def test_what_does_not_pass_is_not_received() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with closing(one), closing(other):
        other.setblocking(False)
        attach_filter(other.fileno(), only(b"a"))
        one.send(b"abc")
        assert other.recv(9) == b"abc"
        attach_filter(other.fileno(), only(b"b"))
        one.send(b"bcd")
        assert other.recv(9) == b"bcd"
        with pytest.raises(BlockingIOError):
            other.recv(9)


def test_a_program_that_is_none_is_refused() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with closing(one), closing(other), pytest.raises(OSError, match="Invalid argument"):
        attach_filter(other.fileno(), INSTRUCTION.pack(JEQ, 200, 200, 0))
