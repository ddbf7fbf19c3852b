"""Address objects, and what is no address."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from tests.unit.workers.lua.scripts import complete, hosted, prints, raises


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.168.0.2", "192.168.0.2:5478"),
        ("192.168.0.2:1234", "192.168.0.2:1234"),
        ("::1", "[::1]:5478"),
        ("[::1]", "[::1]:5478"),
        ("[::1]:4321", "[::1]:4321"),
        ("ff02::dead:beef", "[ff02::dead:beef]:5478"),
        ("[ff02::dead:beef]:1234", "[ff02::dead:beef]:1234"),
        ("[fe80::1%lo]:80", "[fe80::1%lo]:80"),
        ("fe80::1%1", "[fe80::1%lo]:5478"),
        ("/run/server5.sock", "/run/server5.sock"),
        ("@server4", "@server4"),
        ("/" + "x" * 106, "/" + "x" * 106),
        ("@" + "x" * 106, "@" + "x" * 106),
        ("localhost:1234", ("127.0.0.1:1234", "[::1]:1234")),
        ("localhost", ("127.0.0.1:5478", "[::1]:5478")),
    ],
)
def test_addresses(text: str, shown: str | tuple[str, ...]) -> None:
    (line,) = prints(f"print(control_resolve('{text}'))")
    assert line in ((shown,) if isinstance(shown, str) else shown)


def test_a_service_is_a_port() -> None:
    assert prints("print(control_resolve('127.0.0.1:discard'))") == ["127.0.0.1:9"]


def test_a_service_may_be_known_for_another_kind_of_socket() -> None:
    """`http` has no line for UDP, which the control protocol uses."""
    (line,) = prints("print(control_resolve('localhost:http'))")
    assert line in ("127.0.0.1:80", "[::1]:80")
    (problem,) = prints("print(select(2, socket:connect('localhost:http', { type = 'dgram' })))")
    assert problem == ""  # it worked: there is no second value


def test_a_service_that_is_not_known() -> None:
    problem = raises("local a = control_resolve('localhost:nosuchservice')")
    assert problem.startswith("script:1: cannot resolve 'localhost', port 'nosuchservice': ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot use address '': it is empty or has a NUL in it"),
        ("a\\0b", "cannot use address 'a\\x00b': it is empty or has a NUL in it"),
        ("@", "cannot use address '@': it has not from 1 to 107 bytes"),
        ("/" + "x" * 107, f"cannot use address '/{'x' * 107}': it has not from 1 to 107 bytes"),
        ("[::1", "cannot use address '[::1': expected '[IPv6 address]:port'"),
        ("[::1]x", "cannot use address '[::1]x': expected '[IPv6 address]:port'"),
        ("[host]:1", "cannot use address '[host]:1': expected '[IPv6 address]:port'"),
        ("1:2:x", "cannot use address '1:2:x': '1:2:x' is not an IPv6 address"),
        ("127.0.0.1:", "cannot use address '127.0.0.1:': host or port is empty"),
        (":80", "cannot use address ':80': host or port is empty"),
        ("127.0.0.1:0", "cannot use address '127.0.0.1:0': port 0 is not from 1 to 65535"),
        ("127.0.0.1:65536", "cannot use address '127.0.0.1:65536': port 65536 is not from 1 to 65535"),
        ("[fe80::1%nowhere]:1", "cannot use interface 'nowhere': no such interface"),
    ],
)
def test_what_is_no_address(text: str, problem: str) -> None:
    assert raises(f'local a = control_resolve("{text}")') == f"script:1: {problem}"


def test_a_name_that_is_not_known() -> None:
    problem = raises("local a = control_resolve('no.such.name.invalid:1')")
    assert problem.startswith("script:1: cannot resolve 'no.such.name.invalid', port '1': ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("", "bad argument #1 to 'control_resolve' (string expected, got nil)"),
        ("{}", "bad argument #1 to 'control_resolve' (string expected, got table)"),
        ("control_resolve('@x')", "bad argument #1 to 'control_resolve' (string expected, got address)"),
        ("'@x', 5478", "bad argument #2 to 'control_resolve' (no more than 1 expected)"),
    ],
)
def test_wrong_arguments(arguments: str, problem: str) -> None:
    assert raises(f"\nlocal a = control_resolve({arguments})") == f"script:2: {problem}"


def test_a_resolver_that_is_silent_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    real = socket.getaddrinfo

    def silent(host: str, *args: object, **more: object) -> object:
        if host == "slow":
            assert answer.wait(20)
            host = "127.0.0.1"
        return real(host, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    script = "function slow() print(control_resolve('slow:1')) end function reload() print('meanwhile') end"

    async def run() -> None:
        async with hosted(script) as kept:
            slow = [kept.host.call("slow") for _ in range(10)]
            assert await kept.host.call("reload")
            assert kept.printed == ["meanwhile"]
            answer.set()
            assert all(await asyncio.gather(*slow))
            assert kept.printed[1:] == ["127.0.0.1:1"] * 10

    complete(run())


def test_nobody_waits_for_a_silent_resolver_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def silent(*_args: object, flags: int = 0, **_more: object) -> list[object]:
        if flags:
            raise OSError("not numeric")
        assert answer.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    async def run() -> asyncio.Future[bool]:
        async with hosted("function slow() control_resolve('slow:http') end") as kept:
            call = kept.host.call("slow")
            await asyncio.sleep(0)
            return call

    assert complete(run()).cancelled()
    answer.set()
