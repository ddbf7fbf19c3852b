"""Descriptors whose last close takes the kernel long, whatever signals there are."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from supervisor.linux.inotify import inotify_init1

PACKETS = 120  # some 12 ms each; the kernel takes 253 with a datagram
INSTANCES = 40  # of inotify, of which a user may have 128
OWNER = 65521  # their user: root's may be in use by daemons of other tests


def send_packet_sockets(over: socket.socket, datagram: bytes) -> None:
    """Send the last reference to each of many packet sockets: a second or two until all are closed."""
    with ExitStack() as stack:
        sent = [stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) for _ in range(PACKETS)]
        socket.send_fds(over, [datagram], [sock.fileno() for sock in sent])


def send_inotify(over: socket.socket, datagram: bytes) -> None:
    """Send the last reference to each of many inotify descriptors: some tenths of a second."""
    with ExitStack() as stack:
        fds = []
        os.seteuid(OWNER)
        try:
            for _ in range(INSTANCES):
                fds.append(inotify_init1())
                stack.callback(os.close, fds[-1])
        finally:
            os.seteuid(0)
        socket.send_fds(over, [datagram], fds)
