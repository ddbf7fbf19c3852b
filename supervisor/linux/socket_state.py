"""Queues and connections of sockets: sock_diag(7) for Unix sockets and for TCP; TCP_INFO of tcp(7)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Any

from supervisor.linux.netlink import NetlinkSocket, attribute, attributes

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_NAME, UDIAG_SHOW_VFS, UDIAG_SHOW_PEER, UDIAG_SHOW_ICONS, UDIAG_SHOW_RQLEN = 0x01, 0x02, 0x04, 0x08, 0x10
UNIX_DIAG_NAME, UNIX_DIAG_VFS, UNIX_DIAG_PEER, UNIX_DIAG_ICONS, UNIX_DIAG_RQLEN = range(5)
# <linux/inet_diag.h>; a program in byte code selects sockets
INET_DIAG_REQ_BYTECODE = 1
INET_DIAG_BC_JMP, INET_DIAG_BC_S_EQ = 1, 11
# <linux/tcp_states.h>
ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 1, 4, 5, 8, 9, 10, 11
NO_COOKIE = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_MESSAGE_SIZE = 16  # struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")
_RQLEN = struct.Struct("=II")
_INODE = struct.Struct("=I")
_TCP_REQUEST = struct.Struct("=BBBxI2sH16x16xIII")  # struct inet_diag_req_v2, by local port
_TCP_MESSAGE = struct.Struct("=BBBB2s2s16s16sIIIIIIII")  # struct inet_diag_msg

_UNIX_MESSAGE = struct.Struct("=BBBBI")
_OPERATION = struct.Struct("=BBH")  # struct inet_diag_bc_op
MOST_PORTS = 256  # that the kernel compares with those of each socket

_UNACKED_AT = 24  # tcpi_unacked of struct tcp_info, <linux/tcp.h>: for a listening socket, the length of its backlog


def queue_length(fd: int) -> int:
    """Return the number of clients in the backlog of a listening socket, or the readable bytes of another one.

    Raises OSError, ENOENT if the kernel has no sock_diag for Unix sockets.
    """
    found = _ask(os.fstat(fd).st_ino, UDIAG_SHOW_RQLEN, UNIX_DIAG_RQLEN)
    return int(_RQLEN.unpack_from(found)[0]) if found else 0


def has_lost_peer(fd: int) -> bool:
    """Whether the peer of a connected datagram socket was closed, which poll(2) does not report.

    Raises OSError, ENOENT if the kernel has no sock_diag for Unix sockets.
    """
    found = _ask(os.fstat(fd).st_ino, UDIAG_SHOW_PEER, UNIX_DIAG_PEER)
    if not found:
        return False  # not connected
    peer = _INODE.unpack_from(found)[0]
    if peer == 0:
        return True
    try:
        _ask(peer, UDIAG_SHOW_RQLEN, UNIX_DIAG_RQLEN)
    except FileNotFoundError:
        return True
    return False


def unix_clients(fd: int) -> list[int]:
    """Return the inodes of the clients in the backlog of a listening Unix socket. Raises OSError, as above."""
    found = _ask(os.fstat(fd).st_ino, UDIAG_SHOW_ICONS, UNIX_DIAG_ICONS)
    return [inode for (inode,) in _INODE.iter_unpack(found)]


def tcp_clients(port: int) -> Iterator[str]:
    """Yield addresses and ports, as text, of connections to a local port that no process has accepted yet.

    They are those of the network namespace of the calling thread. The kernel walks its table of all connections,
    which takes milliseconds on a busy host. Raises OSError.
    """
    wanted = 1 << ESTABLISHED | 1 << CLOSE_WAIT  # others may have been accepted, and closed
    for family in (socket.AF_INET, socket.AF_INET6):
        for found in _tcp_sockets(family, wanted, port):
            _, _, _, _, _, peer_port, _, peer, *_, inode = found
            if inode == 0:
                size = 4 if family == socket.AF_INET else 16
                yield f"{socket.inet_ntop(family, peer[:size])} {int.from_bytes(peer_port, 'big')}"


def tcp_connections(family: int, ports: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yield local port and address of the connections to these ports that a process has, or can accept.

    Those in TIME_WAIT are not among them: a busy host has tens of thousands, and the kernel leaves them out. Nor are
    those that a process has closed and the kernel has yet to finish. Namespace, time and errors as above.
    """
    open_states = (ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING)
    wanted = sum(1 << state for state in open_states)
    size = 4 if family == socket.AF_INET else 16
    selection = attribute(INET_DIAG_REQ_BYTECODE, _with_ports(ports)) if len(ports) <= MOST_PORTS else b""
    for found in _tcp_sockets(family, wanted, 0, selection):
        _, state, _, _, port, _, address, *_, inode = found
        if inode or state in (ESTABLISHED, CLOSE_WAIT):
            yield int.from_bytes(port, "big"), address[:size]


def _tcp_sockets(family: int, states: int, port: int, selection: bytes = b"") -> Iterator[tuple[Any, ...]]:
    """Yield the fields of `struct inet_diag_msg` of the sockets in these states."""
    request = _TCP_REQUEST.pack(
        *(family, socket.IPPROTO_TCP, 0, states, port.to_bytes(2, "big"), 0, 0, NO_COOKIE, NO_COOKIE)
    )
    netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
    try:
        for answer in netlink.dump(SOCK_DIAG_BY_FAMILY, request + selection):
            yield _TCP_MESSAGE.unpack_from(answer.body)
    finally:
        netlink.close()


def _with_ports(ports: Collection[int]) -> bytes:
    """Return the byte code that selects sockets with these local ports.

    Each comparison leads to a jump to the end, which selects the socket, or to the next comparison; the last one leads
    four bytes beyond the end, which does not.
    """
    code = b""
    last = len(ports) * 3 * _OPERATION.size
    for number, port in enumerate(ports, 1):
        left = last - number * 3 * _OPERATION.size
        other = 3 * _OPERATION.size + (0 if left else _OPERATION.size)
        code += _OPERATION.pack(INET_DIAG_BC_S_EQ, 2 * _OPERATION.size, other) + _OPERATION.pack(0, 0, port)
        code += _OPERATION.pack(INET_DIAG_BC_JMP, _OPERATION.size, left + _OPERATION.size)
    return code


def unix_connections() -> tuple[dict[int, int], set[int]]:
    """Return the number of accepted connections by inode of the listening socket, and the inodes of all of these.

    A connection has the name and the file of the socket that has accepted it, and is in the network namespace of its
    client: those of clients in other namespaces than that of the calling thread are missing. Raises OSError.
    """
    states, show = 1 << ESTABLISHED | 1 << LISTEN, UDIAG_SHOW_NAME | UDIAG_SHOW_VFS
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, states, 0, show, NO_COOKIE, NO_COOKIE)
    netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
    try:
        answers = netlink.dump(SOCK_DIAG_BY_FAMILY, request)
    finally:
        netlink.close()
    listening: dict[int, tuple[bytes, ...]] = {}
    connected: dict[tuple[bytes, ...], int] = {}
    inodes: set[int] = set()
    for answer in answers:
        _, _, state, _, inode = _UNIX_MESSAGE.unpack_from(answer.body)
        found = attributes(answer.body, _MESSAGE_SIZE)
        place = found.get(UNIX_DIAG_NAME, b""), found.get(UNIX_DIAG_VFS, b"")
        inodes.add(inode)
        if state == LISTEN:
            listening[inode] = place
        elif place[0]:
            connected[place] = connected.get(place, 0) + 1
    return {inode: connected.get(place, 0) for inode, place in listening.items()}, inodes


def _ask(inode: int, show: int, wanted: int) -> bytes:
    """Return an attribute of a socket, or b"" if it has none."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, NO_COOKIE, inode, show, NO_COOKIE, NO_COOKIE)
    header = _HEADER.pack(_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as netlink:
        netlink.sendto(header + request, (0, 0))
        data = netlink.recv(4096, socket.MSG_DONTWAIT)  # the request is handled synchronously, so the answer is there
    kind = _HEADER.unpack_from(data)[1]
    if kind != SOCK_DIAG_BY_FAMILY:
        number = -struct.unpack_from("=i", data, _HEADER.size)[0]
        raise OSError(number, os.strerror(number))
    at = _HEADER.size + _MESSAGE_SIZE
    while at + _ATTRIBUTE.size <= len(data):
        size, attribute = _ATTRIBUTE.unpack_from(data, at)
        if attribute == wanted:
            return data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return b""


def backlog_length(fd: int) -> int:
    """Return the number of connections in the backlog of a listening TCP socket. Raises OSError."""
    with socket.socket(fileno=fd) as sock:
        try:
            data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_AT + 4)
        finally:
            sock.detach()  # the caller owns the descriptor
    return int(struct.unpack_from("=I", data, _UNACKED_AT)[0])
