"""A listener on a control socket that is no spawnd: it sends the same bytes to every client."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

PAUSE = 0.005  # seconds between the parts of an endless answer


class Listener:
    """Answers one client after the other in a thread, from `start` to `stop`."""

    def __init__(self, path: str, answer: bytes, endless: bytes) -> None:
        self._answer = answer
        self._endless = endless
        self._stopped = Event()
        self._client: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        """Wake the thread from whatever it waits for, and wait for its end."""
        self._stopped.set()  # before the look at the client: the thread looks in the other order
        self._listener.shutdown(socket.SHUT_RDWR)
        if self._client is not None:
            with suppress(OSError):  # the client has gone, or the thread has closed the connection
                self._client.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            with suppress(OSError), self._listener.accept()[0] as self._client:
                if not self._stopped.is_set():
                    self._talk(self._client)

    def _talk(self, client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(self._answer)
        while self._endless and not self._stopped.wait(PAUSE):
            client.sendall(self._endless)
        while client.recv(1 << 16):
            client.sendall(self._answer)


@contextmanager
def answering(path: str, answer: bytes, endless: bytes = b"") -> Iterator[None]:
    """Answer every call with these bytes, and with `endless` again and again after them."""
    listener = Listener(path, answer, endless)
    try:
        yield
    finally:
        listener.stop()
        os.unlink(path)
