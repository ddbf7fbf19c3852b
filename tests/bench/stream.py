"""A TCP stream through the link of a network namespace: numbered bytes in, one connection, counted."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from supervisor.linux.namespaces import CLONE_NEWNET, setns

PORT = 5001
CHUNK = bytes(range(256)) * 64


class Stream:
    """Sends from the host to a socket inside, in threads of this process.

    `intact`: every byte came, in order.  `longest_pause` is the longest time without one, in seconds.
    """

    def __init__(self, namespace: str, address: str) -> None:
        self.sent = 0
        self.received = 0
        self.intact = True
        self.longest_pause = 0.0
        self.connections = 0
        self._ends = False
        self._listener = _inside(namespace, lambda: socket.create_server((address, PORT)))
        self._client = socket.create_connection((address, PORT), 20)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends = True
        for thread in self._threads:
            thread.join(60)
        self._client.close()
        self._listener.close()

    def _send(self) -> None:
        while not self._ends:
            self._client.sendall(CHUNK)
            self.sent += len(CHUNK)
            time.sleep(0.0005)  # a steady stream rather than all that the processor gives
        self._client.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        connection, _address = self._listener.accept()
        self.connections += 1
        last = time.monotonic()
        with connection:
            while data := connection.recv(1 << 16):
                now = time.monotonic()
                self.longest_pause = max(self.longest_pause, now - last)
                last = now
                start = self.received % len(CHUNK)
                wanted = (CHUNK * (2 + len(data) // len(CHUNK)))[start : start + len(data)]
                self.intact = self.intact and data == wanted
                self.received += len(data)


def _inside(namespace: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Return the result of `make`, called inside: in a thread, as it does not come back."""
    made: list[socket.socket] = []

    def run() -> None:
        fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
            made.append(make())
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]
