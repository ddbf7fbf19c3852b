"""Queues of sockets: sock_diag(7) for Unix sockets, their peers and clients, and for TCP; TCP_INFO of tcp(7)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from supervisor.linux.netlink import NetlinkSocket

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_PEER, UDIAG_SHOW_ICONS, UDIAG_SHOW_RQLEN = 0x04, 0x08, 0x10
UNIX_DIAG_PEER, UNIX_DIAG_ICONS, UNIX_DIAG_RQLEN = 2, 3, 4
ESTABLISHED, CLOSE_WAIT = 1, 8  # <linux/tcp_states.h>
NO_COOKIE = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_MESSAGE_SIZE = 16  # struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")
_RQLEN = struct.Struct("=II")
_INODE = struct.Struct("=I")
_TCP_REQUEST = struct.Struct("=BBBxI2sH16x16xIII")  # struct inet_diag_req_v2, by local port
_TCP_MESSAGE = struct.Struct("=BBBBH2s16s16sIIIIIIII")  # struct inet_diag_msg

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
        request = _TCP_REQUEST.pack(
            *(family, socket.IPPROTO_TCP, 0, wanted, port.to_bytes(2, "big"), 0, 0, NO_COOKIE, NO_COOKIE)
        )
        netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
        try:
            for answer in netlink.dump(SOCK_DIAG_BY_FAMILY, request):
                _, _, _, _, _, peer_port, _, peer, *_, inode = _TCP_MESSAGE.unpack_from(answer.body)
                if inode == 0:
                    size = 4 if family == socket.AF_INET else 16
                    yield f"{socket.inet_ntop(family, peer[:size])} {int.from_bytes(peer_port, 'big')}"
        finally:
            netlink.close()


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
