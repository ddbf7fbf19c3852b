"""The clients that are let in, and the effect of a lack of room."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.control import server as server_module
from supervisor.control.server import REFUSED_TIMEOUT, Server
from supervisor.definitions.service import Service, Settings
from supervisor.errors import RuntimeFolderError
from supervisor.linux.credentials import set_dumpable
from supervisor.loop.loop import Loop
from supervisor.varlink.connection import ACCEPT_PAUSE
from tests.unit.control.bench import Bench, encode
from tests.unit.control.fake_core import FakeCore

VERSION = encode("io.spawnd.GetVersion")
CONTROL_GROUP = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def call_as(bench: Bench, uid: int, gid: int, groups: list[int], message: bytes = VERSION) -> list[dict[str, Any]]:
    """Return the answer to a process with these ids until the connection ends or one reply has come."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(bench.path)
            sock.sendall(message)
            answer = b""
            while data := sock.recv(65536):
                answer += data
                if b"version" in answer:
                    break
            os.write(writing, answer or b"closed")
        finally:
            os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    received = bytearray()
    bench.run_until(lambda: _read(reading, received))
    os.close(reading)
    os.waitpid(pid, 0)
    return [json.loads(part) for part in bytes(received).split(b"\0") if part]


def _read(fd: int, into: bytearray) -> bool:
    """Whether the writer has closed its end."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return False
    into += data
    return not data


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "groups"), [(0, 0, []), (1234, CONTROL_GROUP, []), (1234, 1234, [9, CONTROL_GROUP])]
)
def test_who_may(bench: Bench, uid: int, gid: int, groups: list[int]) -> None:
    bench.define(Service("web"), settings=Settings(control_group=CONTROL_GROUP))
    (reply,) = call_as(bench, uid, gid, groups)
    assert "version" in reply["parameters"]


@needs_root
@pytest.mark.parametrize("control_group", [None, CONTROL_GROUP])
@pytest.mark.parametrize("message", [VERSION * 3, encode("io.spawnd.Stop", names=["web"]), b" " * 100_000])
def test_others_are_told_and_closed(bench: Bench, control_group: int | None, message: bytes) -> None:
    bench.define(Service("web"), settings=Settings(control_group=control_group))
    (reply,) = call_as(bench, 1234, 1234, [5, 6], message)
    assert reply["error"] in ("org.varlink.service.PermissionDenied", "io.spawnd.Malformed")
    if message != b" " * 100_000:
        assert reply == {"error": "org.varlink.service.PermissionDenied", "parameters": {}}
    assert bench.core.asked == []
    assert not bench.server._refused


@needs_root
def test_many_supplementary_groups(bench: Bench) -> None:
    bench.define(Service("web"), settings=Settings(control_group=CONTROL_GROUP))
    (reply,) = call_as(bench, 1234, 1234, [*range(60000, 61000), CONTROL_GROUP])
    assert "version" in reply["parameters"]


@needs_root
def test_one_who_is_refused_and_says_nothing_is_closed(bench: Bench) -> None:
    client = refused_client(bench)
    bench.run_until(lambda: len(bench.server._refused) == 1)
    bench.advance(REFUSED_TIMEOUT + 1)
    client.wait_closed()
    assert not bench.server._refused


@needs_root
def test_the_refused_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_REFUSED", 1)
    first, second = refused_client(bench), refused_client(bench)
    second.wait_closed()
    assert first.is_silent()


def refused_client(bench: Bench) -> Any:
    """A connection that was made by somebody else: credentials are those at connect(2)."""
    os.seteuid(1234)
    try:
        return bench.connect()
    finally:
        os.seteuid(0)
        set_dumpable(True)  # a change of user takes it from the process of all tests


def test_too_many_clients_are_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    bench.core.plans["web"] = "hangs"
    first, second = bench.connect(), bench.connect()
    first.call("io.spawnd.Start", names=["web"])
    second.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: len(bench.core.observers) == 2)
    third = bench.connect()
    third.send(VERSION)
    assert third.reply()["error"] == "io.spawnd.TooManyClients"
    third.wait_closed()
    first.sock.close()
    bench.run_until(lambda: len(bench.server._clients) == 1)
    assert "version" in bench.call("io.spawnd.GetVersion")["parameters"]


def test_who_is_silent_for_longest_makes_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 3)
    bench.core.plans["web"] = "hangs"
    waiting = bench.connect()
    waiting.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: len(bench.core.observers) == 1)
    spoke, silent = bench.connect(), bench.connect()
    bench.run_until(lambda: len(bench.server._clients) == 3)
    spoke.send(VERSION + b'{"half')
    assert "version" in spoke.reply()["parameters"]
    newest = bench.connect()
    silent.wait_closed()
    newest.send(VERSION)
    assert "version" in newest.reply()["parameters"]
    bench.connect()
    spoke.wait_closed()
    assert waiting.is_silent()
    assert newest.is_silent()


@needs_root
def test_a_group_sends_nobody_away_but_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    monkeypatch.setattr(server_module, "RESERVED", 0)
    bench.define(Service("web"), settings=Settings(control_group=CONTROL_GROUP))
    ours, _ = bench.connect(), bench.connect()
    bench.run_until(lambda: len(bench.server._clients) == 2)
    (reply,) = call_as(bench, 1234, CONTROL_GROUP, [])
    assert reply["error"] == "io.spawnd.TooManyClients"
    assert ours.is_silent()


def test_who_has_begun_a_call_before_all_others_makes_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CALLS", 100_000)
    first, second, third = bench.connect(), bench.connect(), bench.connect()
    first.send(b" " * 10)
    bench.run_until(lambda: bench.server._clients._calls._total == 10)
    second.send(b" " * 60_000)
    bench.run_until(lambda: bench.server._clients._calls._total == 60_010)
    third.send(b" " * 60_000)
    first.wait_closed()
    second.wait_closed()
    bench.run_until(lambda: bench.server._clients._calls._total == 60_000)
    third.send(VERSION)
    assert "version" in third.reply()["parameters"]
    bench.settle()
    assert bench.server._clients._calls._total == 0


@needs_root
def test_a_group_cannot_lock_root_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    monkeypatch.setattr(server_module, "RESERVED", 1)
    bench.define(Service("web"), settings=Settings(control_group=CONTROL_GROUP))
    bench.connect()
    bench.run_until(lambda: len(bench.server._clients) == 1)
    (reply,) = call_as(bench, 1234, CONTROL_GROUP, [])
    assert reply["error"] == "io.spawnd.TooManyClients"
    assert "version" in bench.call("io.spawnd.GetVersion")["parameters"]


def without_descriptors(act: Callable[[], None]) -> None:
    """Act while this process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_accepting_without_descriptors_pauses(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    client = bench.connect()
    client.call("io.spawnd.GetVersion")
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def connect() -> None:
        waiting.connect(bench.path)
        # the one that is connected already is served all the while
        client.call("io.spawnd.GetVersion")
        assert "version" in client.reply()["parameters"]
        bench.advance(ACCEPT_PAUSE / 2)

    assert "version" in client.reply()["parameters"]
    without_descriptors(connect)
    warnings = [record for record in caplog.records if "cannot accept" in record.message]
    assert len(warnings) == 1
    assert os.strerror(errno.EMFILE) in warnings[0].message
    bench.advance(ACCEPT_PAUSE)
    waiting.sendall(VERSION)
    waiting.settimeout(10)
    bench.run_until(lambda: len(bench.server._clients) == 2)
    bench.settle()
    assert b"version" in waiting.recv(4096)
    waiting.close()


def test_closing_while_accepting_pauses(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(folder)
    client = bench.connect()
    bench.run_until(lambda: len(bench.server._clients) == 1)
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def connect() -> None:
        waiting.connect(bench.path)
        bench.advance(0)

    without_descriptors(connect)
    bench.close()
    waiting.close()
    client.sock.close()


def test_the_socket_takes_the_place_of_a_stale_one(bench: Bench) -> None:
    loop = Loop(bench.errors.append)
    os.unlink(bench.path)
    Path(bench.path).write_text("left behind")
    second = Server(loop, FakeCore(loop, []), bench.path, bench.reaper)
    assert stat.S_IMODE(os.stat(bench.path).st_mode) == 0o666
    second.close()
    loop.close()
    assert not os.path.exists(bench.path)


@pytest.mark.parametrize("name", ["no/such/folder/control", "x" * 200])
def test_a_socket_that_cannot_be_made(bench: Bench, folder: str, name: str) -> None:
    with pytest.raises(RuntimeFolderError, match="cannot make control socket"):
        Server(bench.loop, bench.core, os.path.join(folder, name), bench.reaper)


def test_closing_the_server_ends_waits(folder: str) -> None:
    bench = Bench(folder)
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: len(bench.core.observers) == 1)
    bench.close()
    assert not bench.core.observers
    assert os.listdir(folder) == []


def test_who_has_not_read_for_longest_makes_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_REPLIES", 2_000_000)
    bench.define(*(Service(f"service-{number}", description="d" * 900) for number in range(1000)))
    clients = [bench.connect() for _ in range(4)]
    for client in clients:
        client.call("io.spawnd.List")
        bench.settle()
    assert bench.server._clients._replies._total < 2_000_000
    bench.run_until(lambda: clients[0]._receive() or clients[0].ended)
    assert not clients[0].received.endswith(b"\0")
    assert len(clients[3].reply()["parameters"]["services"]) == 1000
