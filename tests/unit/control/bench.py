"""A control server over a fake core, in the test's own process and thread."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from supervisor.control.core import Core
from supervisor.control.server import Server
from supervisor.control.verbs import METHODS
from supervisor.definitions.service import Service, Settings
from supervisor.lifecycle.life import State
from supervisor.loop.loop import Loop
from supervisor.varlink.connection import Connection
from supervisor.varlink.pending_call import PendingCall
from tests.unit.closing import Reaper
from tests.unit.control.fake_core import FakeCore
from tests.unit.waiting import DEADLINE


class Clock:
    """Real time, which a test can move on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Bench:
    """Owns the loop and the server; the clients are the test's."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "control")
        self.clock = Clock()
        self.errors: list[BaseException] = []
        self.loop = Loop(self.errors.append, self.clock)
        self.reaper = Reaper()
        self.core = FakeCore(self.loop, [Service(name) for name in ("qotd", "tftp", "web")])
        self.server = Server(self.loop, self.core, self.path, self.reaper)
        self.clients: list[Client] = []

    def define(self, *services: Service, settings: Settings | None = None) -> FakeCore:
        """Other services than the three."""
        self.core.close()
        self.core.__init__(self.loop, services, settings)  # type: ignore[misc]
        return self.core

    def connect(self) -> Client:
        client = Client(self)
        client.sock.connect(self.path)
        client.sock.setblocking(False)
        return client

    def call(self, method: str, /, **parameters: object) -> dict[str, Any]:
        """One call over a connection of its own: the whole reply."""
        client = self.connect()
        client.send(encode(method, **parameters))
        reply = client.reply()
        client.sock.close()
        return reply

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until the condition holds; fails at a deadline."""
        deadline = time.monotonic() + DEADLINE

        def look() -> None:
            ended = True
            try:
                ended = condition() or time.monotonic() > deadline
            finally:
                if ended:
                    self.loop.stop()
                else:
                    self.loop.call_later(0.0005, look)

        self.loop.call_soon(look)
        self.loop.run()
        assert not self.errors, self.errors
        assert condition(), "not within the deadline"

    def settle(self) -> None:
        """Run until everything that is under way has been seen to: a round trip of another client says so."""
        for _ in range(3):
            assert "error" not in self.call("io.spawnd.GetVersion")

    def advance(self, seconds: float) -> None:
        self.clock.ahead += seconds
        rounds = iter(range(4))
        self.run_until(lambda: next(rounds, None) is None)

    def streaming(self) -> Connection:
        """The one connection whose call goes on; those that were closed are gone."""
        self.run_until(lambda: len(self.server._clients) == 1)
        (connection,) = self.server._clients
        return connection

    def pending(self) -> PendingCall:
        """The call that goes on."""
        pending = self.streaming()._pending
        assert pending is not None
        return pending

    def is_idle(self) -> bool:
        """Whether the loop would wait for ever."""
        return self.loop._wait_time() == -1

    def execute(self) -> None:
        """Another server goes on with what this one has told, as plain data and duplicates, which see no close."""
        kept = json.loads(json.dumps(self.server.saved()))
        for holder in (kept, *kept["connections"]):
            key = "fd" if "fd" in holder else "listener"
            holder[key] = os.dup(holder[key])
            os.set_inheritable(holder[key], True)
        for connection in list(self.server._clients):
            # no shutdown: as an exec does it
            connection._callbacks = connection._callbacks._replace(discard=socket.socket.close)
            connection.close()
        self.server._watch.close()
        self.server._acceptor.stop()
        self.server._listener.close()
        self.server = Server(self.loop, self.core, self.path, self.reaper, kept)

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
        self.server.close()
        self.core.close()
        self.loop.close()


class Client:
    """A client that never blocks: the bench runs the server while it waits."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.received = bytearray()
        self.ended = False
        bench.clients.append(self)

    def call(self, method: str, /, **parameters: object) -> None:
        self.send(encode(method, **parameters))

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

    def reply(self) -> dict[str, Any]:
        self.bench.run_until(lambda: self._has_reply() or self.ended)
        assert not self.ended or b"\0" in self.received, "closed without a reply"
        message, _, rest = bytes(self.received).partition(b"\0")
        self.received = bytearray(rest)
        value: dict[str, Any] = json.loads(message)
        return value

    def replies(self, count: int) -> list[dict[str, Any]]:
        """The next so many replies, waited for together."""
        self.bench.run_until(lambda: self._receive() or self.received.count(b"\0") >= count or self.ended)
        *messages, rest = bytes(self.received).split(b"\0", count)
        assert len(messages) == count, "closed without all replies"
        self.received = bytearray(rest)
        return [json.loads(message) for message in messages]

    def results(self) -> dict[str, tuple[bool, str, str]]:
        """Of a reply to an order: ok, state and message by name."""
        rows = self.reply()["parameters"]["results"]
        return {row["name"]: (row["ok"], row["state"], row["message"]) for row in rows}

    def wait_closed(self) -> None:
        """The server has closed the connection, with nothing left to be read."""
        self.bench.run_until(lambda: self._receive() or self.ended)
        assert not self.received, bytes(self.received)

    def stream(self, method: str, **parameters: object) -> None:
        """A call with many replies."""
        self.send(encode_call(method, parameters, more=True))

    def is_silent(self) -> bool:
        """Whether nothing has come, and the connection stands."""
        self._receive()
        return not self.received and not self.ended

    def _has_reply(self) -> bool:
        self._receive()
        return b"\0" in self.received

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


def resume(monkeypatch: pytest.MonkeyPatch, method: str, memo: dict[str, Any]) -> None:
    """Have calls of a method begin with what an earlier one wrote down, after a way through JSON."""
    run = METHODS[method]

    def go_on(pending: PendingCall, core: Core) -> None:
        pending.memo.update(json.loads(json.dumps(memo)))
        run(pending, core)

    monkeypatch.setitem(METHODS, method, go_on)


def encode(method: str, /, **parameters: object) -> bytes:
    return encode_call(method, parameters)


def encode_oneway(method: str, /, **parameters: object) -> bytes:
    """A call that wants no reply."""
    return encode_call(method, parameters, oneway=True)


def encode_call(method: str, parameters: Mapping[str, object], **flags: bool) -> bytes:
    message = {"method": method, "parameters": parameters, **flags}
    return json.dumps(message).encode() + b"\0"


def in_a_row(bench: Bench) -> Bench:
    """web needs app, which needs db, and all run; idle needs db as well, and does not."""
    needs = {"app": "db", "web": "app", "idle": "db"}
    core = bench.define(Service("db"), *(Service(name, depends=(other,)) for name, other in needs.items()))
    core.start(["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.RUNNING)
    return bench
