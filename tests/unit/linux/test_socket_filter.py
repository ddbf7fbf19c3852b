"""Filters on sockets, with datagrams that pass and others that do not."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from supervisor.linux.socket_filter import INSTRUCTION, attach_filter

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
