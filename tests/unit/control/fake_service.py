"""A service with a control socket, played by the test."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.unit.control.bench import Bench, Client, encode_call


class FakeService:
    """Listens at `path`; the test says what it does."""

    def __init__(self, bench: Bench, path: str, backlog: int = 16) -> None:
        self.bench = bench
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(backlog)
        self.listener.setblocking(False)
        self.connections: list[Peer] = []

    def accept(self) -> Peer:
        """The next who connects."""
        found: list[socket.socket] = []

        def accepted() -> bool:
            if not found:
                with suppress(BlockingIOError):
                    found.append(self.listener.accept()[0])
            return bool(found)

        self.bench.run_until(accepted)
        peer = Peer(self.bench, found[0])
        self.connections.append(peer)
        return peer

    def close(self) -> None:
        self.listener.close()
        for peer in self.connections:
            peer.sock.close()


class Peer:
    """The service's end of a connection."""

    def __init__(self, bench: Bench, sock: socket.socket) -> None:
        self.bench = bench
        self.sock = sock
        self.received = bytearray()
        self.ended = False
        sock.setblocking(False)

    def call(self) -> dict[str, Any]:
        """The next call."""
        self.bench.run_until(lambda: self._receive() or b"\0" in self.received)
        message, _, rest = bytes(self.received).partition(b"\0")
        self.received = bytearray(rest)
        value: dict[str, Any] = json.loads(message)
        return value

    def reply(self, parameters: object, **more: object) -> None:
        self.send(json.dumps({"parameters": parameters, **more}).encode() + b"\0")

    def send(self, data: bytes) -> None:
        rest = memoryview(data)

        def sent() -> bool:
            nonlocal rest
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                return False
            return not rest

        self.bench.run_until(sent)

    def send_nowait(self, data: bytes) -> int:
        """How much went out, 0 where the other end does not read."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def wait_closed(self) -> None:
        self.bench.run_until(lambda: self._receive() or self.ended)

    def _receive(self) -> bool:
        try:
            while data := self.sock.recv(1 << 16):
                self.received += data
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        self.ended = True
        return False


MakeService = Callable[..., FakeService]


def ask(bench: Bench, method: str = "a.b.Do", more: bool = False, oneway: bool = False, **parameters: object) -> Client:
    """Have `web` called."""
    client = bench.connect()
    flags = {"more": more} if more else {"oneway": oneway} if oneway else {}
    client.send(encode_call("io.spawnd.Call", {"name": "web", "method": method} | parameters, **flags))
    return client


def asked(bench: Bench, service: FakeService, **parameters: Any) -> tuple[Client, Peer]:
    """Have `web` called, and take the call."""
    client = ask(bench, **parameters)
    peer = service.accept()
    peer.call()
    return client, peer
