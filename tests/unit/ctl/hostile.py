"""A listener on a control socket that is no spawnd: it sends the same bytes to every client."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


@contextmanager
def answering(path: str, answer: bytes, endless: bytes = b"") -> Iterator[None]:
    """Answer every call with these bytes, and with `endless` again and again after them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    pid = os.fork()
    if pid == 0:
        _serve(listener, answer, endless)
    listener.close()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.unlink(path)


def _serve(listener: socket.socket, answer: bytes, endless: bytes) -> NoReturn:
    try:
        while True:
            with listener.accept()[0] as client, suppress(OSError):
                client.recv(1 << 16)
                client.sendall(answer)
                while endless:
                    client.sendall(endless)
                while client.recv(1 << 16):
                    client.sendall(answer)
    finally:
        os._exit(1)
