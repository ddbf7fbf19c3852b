"""Sockets of scripts, with real peers."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.unit.workers.lua.scripts import complete, hosted, prints, raises, wait_for
from workers.lua import socket as module
from workers.lua.address import Address
from workers.lua.state import Failure

KINDS = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


def listening(family: int, kind: int, address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.settimeout(60)
    sock.bind(address)
    if kind != socket.SOCK_DGRAM:
        sock.listen(8)
    return sock


def received(server: socket.socket) -> bytes:
    if server.type == socket.SOCK_DGRAM:
        return server.recv(65536)
    with server.accept()[0] as connection:
        connection.settimeout(60)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
        return data


@pytest.fixture
def loopback() -> Iterator[socket.socket]:
    with listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["path", "abstract"])
def test_local_sockets(tmp_path: Path, kind: str, place: str) -> None:
    path = f"{tmp_path}/socket"
    address = path if place == "path" else f"\0{path}"
    shown = path if place == "path" else f"@{path}"
    with listening(socket.AF_UNIX, KINDS[kind], address) as server:
        script = f"s = assert(socket:connect('{shown}', {{type='{kind}'}})) print(s:send('hello world')) s:close()"
        assert prints(script) == ["11"]
        assert received(server) == b"hello world"


@pytest.mark.parametrize("kind", ["stream", "dgram"])
@pytest.mark.parametrize(
    ("family", "host", "written"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "[::1]"),
    ],
)
def test_internet_sockets(kind: str, family: int, host: str, written: str) -> None:
    if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 on this host")
    with listening(family, KINDS[kind], (host, 0)) as server:
        address = f"{written}:{server.getsockname()[1]}"
        assert prints(f"s = assert(socket:connect('{address}', {{type='{kind}'}})) print(s:send('x\\0y'))") == ["3"]
        assert received(server) == b"x\0y"


def test_the_addresses_of_a_name_are_tried_in_turn(loopback: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = loopback.getsockname()[1]
    real = socket.getaddrinfo

    def two(host: str, *args: object, flags: int = 0, **more: object) -> object:
        both = ("::1", "127.0.0.1") if host == "both" and not flags else (host,)
        return [found for each in both for found in real(each, *args, flags=flags, **more)]  # type: ignore

    monkeypatch.setattr(socket, "getaddrinfo", two)
    assert prints(f"print(assert(socket:connect('both:{port}')):send('x'))") == ["1"]
    assert received(loopback) == b"x"


def test_an_address_object(loopback: socket.socket) -> None:
    script = f"a = control_resolve('127.0.0.1:{loopback.getsockname()[1]}') print(assert(socket:connect(a)):send('x'))"
    assert prints(script) == ["1"]
    assert received(loopback) == b"x"


@pytest.mark.parametrize(
    ("range_", "sent"),
    [
        ("", b"0123456789"),
        (", 3", b"23456789"),
        (", 3, 5", b"234"),
        (", -3", b"789"),
        (", -3, -2", b"78"),
        (", nil, 2", b"01"),
        (", 0, 100", b"0123456789"),
        (", 5, 4", b""),
        (", 11", b""),
    ],
)
def test_positions_are_those_of_string_sub(loopback: socket.socket, range_: str, sent: bytes) -> None:
    port = loopback.getsockname()[1]
    script = f"d = '0123456789' s = socket:connect('127.0.0.1:{port}') print(s:send(d{range_})) s:close()"
    assert prints(script) == [str(len(sent))]
    assert received(loopback) == sent


@pytest.mark.parametrize(
    ("address", "options", "problem"),
    [
        ("/nowhere/socket", "", "cannot connect to /nowhere/socket: No such file or directory"),
        ("@nowhere.lua.test", "", "cannot connect to @nowhere.lua.test: Connection refused"),
        ("127.0.0.1:1", "", "cannot connect to 127.0.0.1:1: Connection refused"),
        ("127.0.0.1:1", ", {type='seqpacket'}", "cannot connect to 127.0.0.1:1: "),
        ("127.0.0.1", "", "cannot use address '127.0.0.1': no port in it"),
        ("", "", "cannot use address '': it is empty or has a NUL in it"),
        ("no.such.name.invalid:1", "", "cannot resolve 'no.such.name.invalid', port '1': "),
    ],
)
def test_failures_are_values(address: str, options: str, problem: str) -> None:
    assert prints(f"print(socket:connect('{address}'{options}))")[0].startswith(f"nil\t{problem}")


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("socket:connect()", "bad argument #1 to 'connect' (string or address expected, got nil)"),
        ("socket:connect(5)", "bad argument #1 to 'connect' (string or address expected, got number)"),
        ("socket.connect('@x')", "bad argument #1 to 'connect' (string or address expected, got nil)"),
        ("socket:connect('@x', 5)", "bad argument #2 to 'connect' (table expected, got number)"),
        ("socket:connect('@x', {kind='dgram'})", "bad argument #2 to 'connect' (option 'type' expected, got 'kind')"),
        (
            "socket:connect('@x', {type='raw'})",
            "bad argument #2 to 'connect' ('stream' or 'dgram' or 'seqpacket' expected, got 'raw')",
        ),
        ("socket:connect('@x', {type=1})", "bad argument #2 to 'connect' (string expected, got number)"),
        ("socket:connect('@x', nil, 1)", "bad argument #3 to 'connect' (no more than 2 expected)"),
        ("s:send()", "bad argument #1 to 'send' (string expected, got nil)"),
        ("s:send('x', 'y')", "bad argument #2 to 'send' (number expected, got string)"),
        (
            "s:send('x', 1.5)",
            "bad argument #2 to 'send' (an integer from -9007199254740992 to 9007199254740992 expected, got 1.5)",
        ),
        ("s:send('x', 1, {})", "bad argument #3 to 'send' (number expected, got table)"),
        ("s:send('x', 1, 1, 1)", "bad argument #4 to 'send' (no more than 3 expected)"),
        ("s.send('x')", "calling 'send' on bad self (socket expected, got string); is it called with a colon?"),
        ("s.close()", "calling 'close' on bad self (socket expected, got nil); is it called with a colon?"),
    ],
)
def test_wrong_arguments(loopback: socket.socket, call: str, problem: str) -> None:
    script = f"s = assert(socket:connect('127.0.0.1:{loopback.getsockname()[1]}'))\nlocal x = {call}"
    assert raises(script) == f"script:2: {problem}"


def test_a_closed_socket(loopback: socket.socket) -> None:
    script = f"s = socket:connect('127.0.0.1:{loopback.getsockname()[1]}') s:close() s:close() print(s:send('x'))"
    assert prints(script) == ["nil\tthe socket is closed"]


def test_a_peer_that_has_gone(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    server = listening(socket.AF_UNIX, socket.SOCK_STREAM, path)

    async def run() -> None:
        async with hosted(f"s = socket:connect('{path}') function reload() print(s:send('x')) end") as kept:
            server.close()
            assert await kept.host.call("reload")
            assert kept.printed == ["nil\tBroken pipe"]

    complete(run())


def test_a_peer_that_reads_slowly_blocks_nothing(loopback: socket.socket) -> None:
    script = f"""
s = assert(socket:connect("127.0.0.1:{loopback.getsockname()[1]}"))
function big(letter) print(s:send(letter:rep(20e6))) end
function a() big("a") end
function b() big("b") end
function reload() print("meanwhile") end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            peer = loopback.accept()[0]
            with peer:
                peer.setblocking(False)
                calls = [kept.host.call("a"), kept.host.call("b")]
                assert await kept.host.call("reload")
                assert kept.printed == ["meanwhile"]
                data = bytearray()
                while len(data) < 40_000_000:
                    data += await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
                assert all(await asyncio.gather(*calls))
                assert data == b"a" * 20_000_000 + b"b" * 20_000_000
                assert kept.printed[1:] == ["20000000", "20000000"]

    complete(run())


def test_closing_ends_what_is_being_sent(loopback: socket.socket) -> None:
    script = f"""
s = assert(socket:connect("127.0.0.1:{loopback.getsockname()[1]}"))
function send() print(s:send(("x"):rep(20e6))) end
function reload() s:close() end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            with loopback.accept()[0]:
                calls = [kept.host.call("send"), kept.host.call("send")]
                await asyncio.sleep(0)
                assert await kept.host.call("reload")
                assert all(await asyncio.gather(*calls))
                assert kept.printed == ["nil\tthe socket is closed"] * 2

    complete(run())


def test_a_full_datagram_queue_is_waited_for(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    script = f"""
s = assert(socket:connect("{path}", {{type="dgram"}}))
function reload() for i = 1, 1000 do assert(s:send(tostring(i))) end end
"""

    async def run() -> None:
        with listening(socket.AF_UNIX, socket.SOCK_DGRAM, path) as server:
            server.setblocking(False)
            async with hosted(script) as kept:
                call = kept.host.call("reload")
                assert not call.done()
                got = [int(await asyncio.get_running_loop().sock_recv(server, 100)) for _ in range(1000)]
                assert got == list(range(1, 1001))
                assert await call

    complete(run())


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"

    async def run() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(path)
            server.listen(1)
            server.setblocking(False)
            async with hosted(f"function reload() print(socket:connect('{path}')) end") as kept:
                calls = [kept.host.call("reload") for _ in range(5)]
                await wait_for(lambda: sum(call.done() for call in calls) == 2)
                accepted = [(await asyncio.get_running_loop().sock_accept(server))[0] for _ in calls]
                assert all(await asyncio.gather(*calls))
                assert kept.printed == ["socket"] * 5
                for connection in accepted:
                    connection.close()

    complete(run())


def test_a_socket_that_the_script_forgets_is_closed(loopback: socket.socket) -> None:
    script = f"""
for i = 1, 100 do assert(socket:connect("127.0.0.1:{loopback.getsockname()[1]}")) end
collectgarbage() collectgarbage()
"""

    async def run() -> None:
        loopback.listen(200)
        before = len(os.listdir("/proc/self/fd"))
        async with hosted(script):
            assert len(os.listdir("/proc/self/fd")) <= before + 5

    complete(run())


def test_small_sends_need_no_waiting(loopback: socket.socket) -> None:
    script = (
        f"s = socket:connect('127.0.0.1:{loopback.getsockname()[1]}') "
        "string.gsub('abc', '.', function(c) assert(s:send(c) == 1) end) s:close()"
    )
    assert prints(script) == []
    assert received(loopback) == b"abc"


def test_a_peer_that_takes_nothing_is_given_up(loopback: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else handlers that wait for it would add up until no other can begin."""
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    script = f"""
s = assert(socket:connect("127.0.0.1:{loopback.getsockname()[1]}"))
function big() print(s:send(("x"):rep(20e6))) end
function reload() print(s:send("x")) end
"""
    others = 200

    async def run() -> None:
        async with hosted(script) as kept:
            with loopback.accept()[0]:
                begun = time.monotonic()
                assert all(await asyncio.gather(*map(kept.host.call, ["big", *["reload"] * others])))
                assert time.monotonic() - begun < 0.3 * others / 2, "all of them together"
                assert kept.printed == ["nil\tthe peer has taken nothing for 30 s"] * (1 + others)
                assert await kept.host.call("reload")
                assert kept.printed[-1] == "nil\tthe socket is closed", "it has a part of something"

    complete(run())


def test_a_datagram_that_nobody_takes_does_not_end_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    path = f"{tmp_path}/socket"
    script = f"""
s = assert(socket:connect("{path}", {{type="dgram"}}))
function send() print(s:send("x")) end
"""

    async def run() -> None:
        with listening(socket.AF_UNIX, socket.SOCK_DGRAM, path) as server:
            server.setblocking(False)
            async with hosted(script) as kept:
                begun = time.monotonic()
                assert all(await asyncio.gather(*(kept.host.call("send") for _ in range(600))))
                assert time.monotonic() - begun < 0.3 * 600 / 2, "all of them together"
                refused = kept.printed.count("nil\tthe peer has taken nothing for 30 s")
                assert 0 < refused < 600
                server.recv(100)
                assert await kept.host.call("send")
                assert kept.printed[-1] == "1"

    complete(run())


def test_a_peer_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # its backlog is full then
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert prints(f"print(socket:connect('{address}'))") == [
            f"nil\tcannot connect to {address}: Connection timed out"
        ]


def test_closed_between_its_becoming_writable_and_the_send(loopback: socket.socket) -> None:
    async def run() -> None:
        address = Address(socket.AF_INET, loopback.getsockname())
        sending = module.Connection(asyncio.get_running_loop(), address, socket.SOCK_STREAM)
        await sending.connect()
        task = asyncio.create_task(sending.send(b"x"))
        await asyncio.sleep(0)
        assert sending._waiter is not None
        sending._waiter.set_result(None)
        sending.close()
        with pytest.raises(Failure, match="the socket is closed"):
            await task

    complete(run())
