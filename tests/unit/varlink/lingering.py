"""A descriptor whose last close waits."""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

LINGER = 60  # seconds that a close would wait


@contextmanager
def lingering() -> Iterator[socket.socket]:
    """A TCP socket with SO_LINGER and more to send than its peer takes; its last close is somebody else's business."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, LINGER))
            sender.setblocking(False)
            try:
                while True:
                    sender.send(b"x" * 65536)
            except BlockingIOError:
                pass
            try:
                yield sender
            finally:
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                receiver.close()  # a reset: nothing is to be waited for any more


def pass_on(over: socket.socket, sock: socket.socket, text: bytes = b"x") -> None:
    """Send a descriptor and close the own one, so that the one on its way is the last."""
    over.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
    sock.close()
