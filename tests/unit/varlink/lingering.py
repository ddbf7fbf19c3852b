"""A descriptor whose last close waits."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
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


def pass_on(over: socket.socket, sock: socket.socket, text: bytes = b"x", flags: int = 0) -> None:
    """Send a descriptor and close the own one, so that the one on its way is the last.

    With MSG_OOB in `flags`, a text of one byte goes out of band, and the descriptor with it.
    Whoever gets it may be faster with its own close; then it is this one that waits, in a thread.
    """
    rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()])
    over.sendmsg([text], [rights], flags)
    closing = threading.Thread(target=os.close, args=(sock.detach(),), daemon=True)
    closing.start()
    closing.join(0.1)
