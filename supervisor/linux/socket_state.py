"""Queue lengths of sockets: sock_diag(7) for Unix sockets and their peers, TCP_INFO of tcp(7)."""

from __future__ import annotations

import os
import socket
import struct

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_PEER, UDIAG_SHOW_RQLEN = 0x04, 0x10
UNIX_DIAG_PEER, UNIX_DIAG_RQLEN = 2, 4
NO_COOKIE = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_MESSAGE_SIZE = 16  # struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")
_RQLEN = struct.Struct("=II")
_INODE = struct.Struct("=I")

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
