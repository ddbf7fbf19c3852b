"""TCP_INFO of tcp(7) for a listening socket: how many clients wait in its backlog."""

from __future__ import annotations

import socket
import struct

_UNACKED_AT = 24  # tcpi_unacked of struct tcp_info, <linux/tcp.h>: of a listening socket the length of its backlog


def backlog_length(fd: int) -> int:
    """Return the number of connections that nobody has accepted yet.  Raises OSError."""
    with socket.socket(fileno=fd) as sock:
        try:
            data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_AT + 4)
        finally:
            sock.detach()  # the caller's
    return int(struct.unpack_from("=I", data, _UNACKED_AT)[0])
