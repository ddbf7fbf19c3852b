"""A worker process with its control socket, and all kinds of peers."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.varlink.messages import MAX_REQUEST
from tests.unit.control.bench import encode, encode_oneway
from tests.unit.varlink.lingering import lingering, pass_on
from tests.unit.waiting import DEADLINE, child_process, wait_exit, wait_until
from tests.unit.workers.greeter import run, run_async
from workers.runtime import control as module
from workers.runtime.control import MAX_CONNECTIONS

Serve = Callable[[socket.socket], None]
PID = encode("io.spawnd.greeter.Pid")


class Greeter:
    """A worker process and its listening socket, which is ours as it is spawnd's."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(512)
        self.pid = 0
        self.at_rest = 0  # descriptors that the worker has without any connection

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.path)
        return sock

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        with self.connect() as sock:
            sock.sendall(encode(f"io.spawnd.greeter.{method}", **parameters))
            return read_reply(sock)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Resident, in bytes; what the process that runs the tests had when it forked is part of it."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read_reply(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\0"):
        chunk = sock.recv(65536)
        assert chunk, "closed without a reply"
        data += chunk
    value: dict[str, Any] = json.loads(data[:-1])
    return value


@pytest.fixture(params=[run, run_async], ids=["own loop", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Serve:
    found: Serve = request.param
    return found


@pytest.fixture
def greeter(serve: Serve) -> Iterator[Greeter]:
    with tempfile.TemporaryDirectory(prefix="ctl") as folder:
        greeter = Greeter(os.path.join(folder, "control"))
        with greeter.listener, child_process(lambda: serve(greeter.listener)) as greeter.pid:
            with greeter.connect() as sock:
                sock.sendall(PID)
                assert read_reply(sock)["parameters"]["pid"] == greeter.pid
                greeter.at_rest = greeter.descriptors() - 1
            yield greeter


def test_calls(greeter: Greeter) -> None:
    assert greeter.call("Greet", name="Ann")["parameters"] == {"text": "Hello Ann."}
    with greeter.connect() as sock:
        sock.sendall(PID * 3 + encode_oneway("io.spawnd.greeter.Pid") + PID)
        replies = b""
        while replies.count(b"\0") < 4:
            replies += sock.recv(65536)
        assert replies.count(b"parameters") == 4


def test_it_ends_orderly(greeter: Greeter) -> None:
    with greeter.connect() as idle:
        os.kill(greeter.pid, signal.SIGTERM)
        assert wait_exit(greeter.pid) == 0
        assert idle.recv(1) == b""


def test_its_successor_serves_who_waits(greeter: Greeter, serve: Serve) -> None:
    os.kill(greeter.pid, signal.SIGSTOP)
    with greeter.connect() as waiting:
        waiting.sendall(PID)
        os.kill(greeter.pid, signal.SIGKILL)
        wait_exit(greeter.pid)
        with child_process(lambda: serve(greeter.listener)) as successor:
            reply = read_reply(waiting)
            assert reply["parameters"]["pid"] == successor


@pytest.mark.parametrize(
    "data", [b"nonsense\0", b"\0", b"\xff\0", b"[" * 100_000 + b"\0", b"{}\0", b" " * (MAX_REQUEST + 1)]
)
def test_garbage_is_answered_and_closed(greeter: Greeter, data: bytes) -> None:
    with greeter.connect() as sock:
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert read_reply(sock)["error"] == "io.spawnd.Malformed"
        assert sock.recv(1) == b""
    assert greeter.call("Greet", name="x")["parameters"]
    wait_until(lambda: greeter.descriptors() == greeter.at_rest)


def test_many_who_say_nothing_and_a_lifetime(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    """Those in the backlog have their turn when the silent ones have had theirs."""
    monkeypatch.setattr(module, "LIFETIME", 0.3)
    with tempfile.TemporaryDirectory(prefix="ctl") as folder:
        greeter = Greeter(os.path.join(folder, "control"))
        with greeter.listener, child_process(lambda: serve(greeter.listener)) as greeter.pid:
            idle = [greeter.connect() for _ in range(3 * MAX_CONNECTIONS)]
            assert greeter.call("Pid")["parameters"]["pid"] == greeter.pid
            for sock in idle:
                sock.close()


def test_never_more_connections_than_the_limit(greeter: Greeter) -> None:
    socks = [greeter.connect() for _ in range(2 * MAX_CONNECTIONS)]
    wait_until(lambda: greeter.descriptors() == greeter.at_rest + MAX_CONNECTIONS)
    for sock in socks[:MAX_CONNECTIONS]:
        sock.close()
    for sock in socks[MAX_CONNECTIONS:]:
        sock.sendall(PID)
        assert read_reply(sock)["parameters"]["pid"] == greeter.pid
    assert greeter.descriptors() <= greeter.at_rest + MAX_CONNECTIONS
    for sock in socks:
        sock.close()
    wait_until(lambda: greeter.descriptors() == greeter.at_rest)


def test_one_who_never_reads_holds_up_nobody(greeter: Greeter) -> None:
    before = greeter.memory()
    with greeter.connect() as sock:
        sock.setblocking(False)
        call = encode("io.spawnd.greeter.Greet", name="x" * 100_000)
        try:
            while True:
                sock.send(call)
                assert greeter.call("Greet", name="x")["parameters"] == {"text": "Hello x."}
        except BlockingIOError:
            pass
        assert greeter.call("Greet", name="x")["parameters"] == {"text": "Hello x."}
    assert greeter.memory() - before < 100 << 20


@pytest.mark.parametrize("text", [b"x", PID, b""])
def test_descriptors_are_neither_taken_nor_waited_for(greeter: Greeter, text: bytes) -> None:
    """Whoever had them last would wait at their close, for as long as their sender likes."""
    with lingering() as one, lingering() as other, greeter.connect() as sock, greeter.connect() as late:
        pass_on(sock, one, text or b"x", 0 if text else socket.MSG_OOB)
        pass_on(late, other, PID)
        late.close()
        for _ in range(10):
            assert greeter.call("Pid")["parameters"]["pid"] == greeter.pid
        assert "error" in read_reply(sock)
        sock.close()
        wait_until(lambda: greeter.descriptors() == greeter.at_rest)
        os.kill(greeter.pid, signal.SIGTERM)
        assert wait_exit(greeter.pid) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_others_are_turned_away(greeter: Greeter) -> None:
    """Should one of them get at the socket in spite of its folder."""
    os.chmod(os.path.dirname(greeter.path), 0o755)
    os.chmod(greeter.path, 0o666)

    def try_it() -> None:
        os.setresuid(1234, 1234, 1234)
        with greeter.connect() as sock:
            try:
                sock.sendall(PID)
                assert sock.recv(1) == b""
            except (BrokenPipeError, ConnectionResetError):
                pass

    with child_process(try_it) as pid:
        assert wait_exit(pid) == 0
    assert greeter.call("Pid")["parameters"]["pid"] == greeter.pid
