"""The message-of-the-day example: its clients, and those of its control channel, well-behaved or not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.examples.program import Program

DEADLINE_S = 60.0
OWN = "org.example.motd"


class Motd:
    """The descriptors of a motd, and the process."""

    def __init__(self, examples: Path) -> None:
        self.path = examples / "motd"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(str(examples / "control"))
        self.control.listen()
        self.program = Program(self.path, [self.tcp.fileno(), self.control.fileno()])

    def close(self) -> None:
        self.program.kill()
        self.tcp.close()
        self.control.close()

    def message(self) -> str:
        with socket.create_connection(self.tcp.getsockname(), timeout=DEADLINE_S) as client:
            return client.makefile().read()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE_S)
        sock.connect(self.control.getsockname())
        return sock

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        with self.connect() as sock:
            sock.sendall(encode(method, **parameters))
            return read_reply(sock)


def encode(method: str, **parameters: object) -> bytes:
    return json.dumps({"method": method, "parameters": parameters}).encode() + b"\0"


def read_reply(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\0"):
        chunk = sock.recv(1)
        assert chunk, data
        data += chunk
    value: dict[str, Any] = json.loads(data[:-1])
    return value


@pytest.fixture
def motd(examples: Path) -> Iterator[Motd]:
    service = Motd(examples)
    try:
        yield service
    finally:
        service.close()


def test_the_message_and_how_often_it_was_told(motd: Motd) -> None:
    assert [motd.message() for _ in range(3)] == ["Nothing to say today.\n"] * 3
    assert motd.call(f"{OWN}.Stats") == {"parameters": {"served": 3, "message": "Nothing to say today."}}
    assert motd.call(f"{OWN}.SetMessage", message='"\0é') == {"parameters": {}}
    assert motd.message() == '"\0é\n'


def test_introspection(motd: Motd) -> None:
    info = motd.call("org.varlink.service.GetInfo")["parameters"]
    assert info["interfaces"] == ["org.varlink.service", OWN]


def test_calls_of_one_connection(motd: Motd) -> None:
    with motd.connect() as sock:
        calls = encode("org.varlink.service.GetInfo") + encode(f"{OWN}.Stats") * 2
        sock.sendall(calls[:10])
        sock.sendall(calls[10:])
        assert [len(read_reply(sock)["parameters"]) for _ in range(3)] == [5, 2, 2]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (encode(f"{OWN}.Nope"), "MethodNotFound"),
        (encode(f"{OWN}.SetMessage"), "InvalidParameter"),
        (encode(f"{OWN}.SetMessage", message=None), "InvalidParameter"),
        (b"nonsense\0", "MethodNotFound"),
        (b"\0", "MethodNotFound"),
        (b"[]\0", "MethodNotFound"),
        (b'{"method":null}\0', "MethodNotFound"),
        (b'{"method":{},"parameters":[]}\0', "MethodNotFound"),
        (b'{"method":"' + OWN.encode() + b'.SetMessage","parameters":null}\0', "InvalidParameter"),
        (b"[" * 5000 + b"\0", "MethodNotFound"),
    ],
)
def test_what_is_no_call_is_answered(motd: Motd, call: bytes, error: str) -> None:
    with motd.connect() as sock:
        sock.sendall(call)
        assert read_reply(sock)["error"] == f"org.varlink.service.{error}"
    assert motd.message()


def test_one_who_says_nothing_is_not_waited_for(motd: Motd) -> None:
    with motd.connect() as silent:
        silent.sendall(b'{"half')
        assert motd.message()
        assert silent.recv(1) == b""


def test_one_who_never_stops(motd: Motd) -> None:
    with motd.connect() as sock:
        try:
            while True:
                sock.sendall(b"x" * 4096)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert motd.message()


def test_one_who_leaves_before_the_answer(motd: Motd) -> None:
    for _ in range(20):
        with motd.connect() as sock:
            sock.sendall(encode(f"{OWN}.Stats") * 10)
    assert motd.call(f"{OWN}.Stats")["parameters"]["served"] == 0


def test_many_callers(motd: Motd) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: motd.call(f"{OWN}.Stats"), range(200)))
    assert all(reply["parameters"]["served"] == 0 for reply in replies)
