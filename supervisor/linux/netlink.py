"""netlink(7) requests, and of rtnetlink(7) the part required to observe and to remove objects.

All data are in native byte order and aligned to 4 bytes. A message consists of type, flags and the data after
`struct nlmsghdr`; numbered attributes follow the header in the data. A classic BPF program filters the input
of a socket, socket(7).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# <linux/netlink.h>
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_LISTEN_ALL_NSID = 8
NETLINK_GET_STRICT_CHK = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE = 0x1, 0x4, 0x300, 0x100
NLM_F_DUMP_INTR = 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_TYPE_MASK = 0x3FFF

# <linux/rtnetlink.h>
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNSID, RTM_GETNSID = 88, 90
RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 1, 5, 7, 9, 11
NETNSA_NSID, NETNSA_FD = 1, 3

BUFFER = 1 << 16
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

SO_ATTACH_FILTER = 26
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog


@dataclass(frozen=True, slots=True)
class Message:
    """A message: type, flags and the data after `struct nlmsghdr`."""

    type: int
    flags: int
    body: bytes


class NetlinkSocket:
    """A socket in the network namespace of the calling thread. Owns its descriptor."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._interrupted = False
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def be_strict(self) -> None:
        """Have the kernel filter dumps by attributes, from Linux 4.20 on. Raises OSError."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    def request(self, kind: int, body: bytes, flags: int = NLM_F_ACK) -> list[Message]:
        """Send a request and return the answers. Raises OSError with the kernel's error."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[Message] = []
        while True:
            for answer, answer_flags, sequence, data in _split(self._socket.recv(BUFFER)):
                if sequence != self._sequence:
                    continue
                self._interrupted = self._interrupted or bool(answer_flags & NLM_F_DUMP_INTR)
                if answer == NLMSG_DONE:
                    return answers
                if answer == NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", data)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return answers
                answers.append(Message(answer, answer_flags, data))
                if flags & NLM_F_DUMP != NLM_F_DUMP and not flags & NLM_F_ACK:
                    return answers

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """Return all objects of a kind; repeated if they changed meanwhile. Raises OSError."""
        while True:
            self._interrupted = False
            found = self.request(kind, body, NLM_F_DUMP)
            if not self._interrupted:  # the last message may report it as well
                return found


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and data of each message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def attributes(body: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes after a header of `offset` bytes, by number."""
    return dict(attribute_list(body, offset))


def attribute_list(body: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes in order; a number may occur several times."""
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & NLA_TYPE_MASK, body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return the bytes of an attribute."""
    padding = bytes(_aligned(len(value)) - len(value))
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def attach_filter(fd: int, code: bytes) -> None:
    """Set the filter of the socket `fd`, in place of an earlier one. Raises OSError."""
    memory = ctypes.create_string_buffer(code, len(code))
    program = _PROGRAM.pack(len(code) // INSTRUCTION.size, ctypes.addressof(memory))
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    finally:
        sock.detach()
