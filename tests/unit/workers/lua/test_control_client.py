"""Control datagrams, byte for byte, and the client that sends them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workers.lua.scripts import complete, hosted, prints, raises

MAGIC = "63046101"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.bind(f"{tmp_path}/control")
        yield sock


def client(receiver: socket.socket) -> str:
    return f"c = assert(control_client:new('{receiver.getsockname()}')) "


GOLDEN = {
    "fade_children('foo')": "0003 0008 666f6f00",
    "flush_filter_cache('tag1')": "0004 000c 74616731",
    "discard_session('0123456789')": "000a 000e 30313233343536373839 0000",
    "flush_http_cache('b')": "0001 000f 62000000",
    "terminate_children('account-7')": "0009 0010 6163636f756e742d37 000000",
    "disconnect_database('db')": "0002 0014 6462 0000",
    "reset_limiter('acc')": "0003 0016 616363 00",
    "reject_client('192.0.2.1')": "000d 0017 00000e10 3139322e302e322e31 000000",
    "reject_client('::1', 0)": "0007 0017 00000000 3a3a31 00",
    "tarpit_client('192.0.2.1', 60)": "000d 0018 0000003c 3139322e302e322e31 000000",
    "tarpit_client('::1', 4294967295)": "0007 0018 ffffffff 3a3a31 00",
    "cancel_job('part', '42')": "0007 0019 70617274 00 3432 00",
    "fade_children('')": "0000 0008",
    "fade_children('a', 'bcd')": "0001 0008 61000000 0003 0008 62636400",
    "fade_children('foo'):flush_http_cache('bar')": "0003 0008 666f6f00 0003 000f 62617200",
    r"terminate_children('\0\255')": "0002 0010 00ff 0000",
    "disconnect_database(42)": "0002 0014 3432 0000",
}


@pytest.mark.parametrize("commands", GOLDEN)
def test_golden_datagrams(receiver: socket.socket, commands: str) -> None:
    assert prints(client(receiver) + f"print(c:send(c:build():{commands}))") == ["true"]
    assert receiver.recv(65536).hex() == MAGIC + GOLDEN[commands].replace(" ", "")


def test_an_empty_datagram(receiver: socket.socket) -> None:
    assert prints(client(receiver) + "print(c:send(c:build()))") == ["true"]
    assert receiver.recv(65536).hex() == MAGIC


def test_a_builder_can_be_sent_again(receiver: socket.socket) -> None:
    prints(client(receiver) + "b = c:build():fade_children('a') c:send(b) c:send(b:fade_children('b'))")
    assert [receiver.recv(100).hex() for _ in range(2)] == [
        MAGIC + "0001000861000000",
        MAGIC + "00010008610000000001000862000000",
    ]


def test_the_longest_payload(receiver: socket.socket) -> None:
    assert prints(client(receiver) + "print(c:send(c:build():fade_children(('x'):rep(65535))))") == ["true"]
    assert receiver.recv(100_000) == bytes.fromhex(MAGIC + "ffff0008") + b"x" * 65535 + b"\0"


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("control_client:new()", "bad argument #1 to 'new' (string or address expected, got nil)"),
        ("control_client:new('@x', 1)", "bad argument #2 to 'new' (no more than 1 expected)"),
        ("c:send()", "bad argument #1 to 'send' (control builder expected, got nil)"),
        ("c:send(c)", "bad argument #1 to 'send' (control builder expected, got control client)"),
        ("c.build()", "calling 'build' on bad self (control client expected, got nil); is it called with a colon?"),
        ("c:build():fade_children()", "bad argument #1 to 'fade_children' (string expected, got nil)"),
        ("c:build():fade_children('a', {})", "bad argument #2 to 'fade_children' (string expected, got table)"),
        ("c:build():fade_children('a', nil)", "bad argument #2 to 'fade_children' (string expected, got nil)"),
        (
            "c:build():fade_children(('x'):rep(65536))",
            "bad argument #1 to 'fade_children' (at most 65535 bytes expected, got 65536)",
        ),
        ("c:build():cancel_job('a')", "bad argument #2 to 'cancel_job' (string expected, got nil)"),
        ("c:build():cancel_job('a\\0', 'b')", "bad argument #1 to 'cancel_job' (a string without NUL expected)"),
        ("c:build():cancel_job('a', 'b', 'c')", "bad argument #3 to 'cancel_job' (no more than 2 expected)"),
        ("c:build():reject_client(true)", "bad argument #1 to 'reject_client' (string expected, got boolean)"),
        ("c:build():reject_client('a', 'b')", "bad argument #2 to 'reject_client' (number expected, got string)"),
        (
            "c:build():tarpit_client('a', -1)",
            "bad argument #2 to 'tarpit_client' (an integer from 0 to 4294967295 expected, got -1)",
        ),
    ],
)
def test_wrong_arguments(receiver: socket.socket, call: str, problem: str) -> None:
    assert raises(client(receiver) + f"\nlocal x = {call}") == f"script:2: {problem}"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("/nowhere", "cannot connect to /nowhere: No such file or directory"),
        ("[::1", "cannot use address '[::1': expected '[IPv6 address]:port'"),
        ("no.such.name.invalid", "cannot resolve 'no.such.name.invalid', port '5478': "),
    ],
)
def test_failures_are_values(address: str, problem: str) -> None:
    assert prints(f"print(control_client:new('{address}'))")[0].startswith(f"nil\t{problem}")


def test_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        prints(f"c = control_client:new(control_resolve('{address}')) c:send(c:build():fade_children('x'))")
        assert sock.recv(100).hex() == MAGIC + "0001000878000000"


def test_too_long_for_a_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        script = (
            f"c = control_client:new('127.0.0.1:{sock.getsockname()[1]}') b = c:build() "
            "for i = 1, 2 do b:fade_children(('x'):rep(40000)) end print(c:send(b))"
        )
        assert prints(script) == ["nil\tMessage too long"]


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_receiver_that_is_started_again(tmp_path: Path, family: int) -> None:
    def bound(address: str | tuple[str, int]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(60)
        sock.bind(address)
        return sock

    async def run() -> None:
        first = bound(f"{tmp_path}/again" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        address = first.getsockname()
        text = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        script = f"c = control_client:new('{text}') function reload() print(c:send(c:build():fade_children('x'))) end"
        async with hosted(script) as kept:
            await kept.host.call("reload")
            assert first.recv(100)
            first.close()
            if isinstance(address, str):
                os.unlink(address)
            await kept.host.call("reload")  # nobody is there
            with bound(address) as second:
                await kept.host.call("reload")
                assert second.recv(100)
            assert kept.printed[0] == kept.printed[2] == "true"
            if family == socket.AF_UNIX:  # of UDP the next one is told
                assert kept.printed[1] == "nil\tNo such file or directory"

    complete(run())


def test_a_full_receiver_is_waited_for(receiver: socket.socket) -> None:
    script = client(receiver) + "function reload() for i = 1, 100 do assert(c:send(c:build():fade_children(i))) end end"

    async def run() -> None:
        receiver.setblocking(False)
        async with hosted(script) as kept:
            call = kept.host.call("reload")
            assert not call.done()
            for _ in range(100):
                assert await asyncio.get_running_loop().sock_recv(receiver, 100)
            assert await call

    complete(run())


def test_sending_needs_no_waiting(receiver: socket.socket) -> None:
    prints(client(receiver) + "table.sort({ 2, 1 }, function(a, b) assert(c:send(c:build())) return a < b end)")
    assert receiver.recv(100).hex() == MAGIC
