"""Names of hosts and ports; the resolver of the host is replaced, its answers differ from one to the next."""

from __future__ import annotations

import socket

import pytest

from supervisor.definitions.databases import Network
from supervisor.definitions.problems import InvalidValue


class Told:
    """Return the announcements of the network before its first look-up."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.network = Network(lambda at, doing: self.calls.append((at, doing)))


@pytest.fixture
def told() -> Told:
    return Told()


def answer(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(host: str, port: None, **_: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(2, 1, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_with_one_address(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "192.0.2.1", "192.0.2.1")
    assert told.network.address("web", "a.lua:3") == "192.0.2.1"
    assert told.network.address("web", "a.lua:4") == "192.0.2.1"
    assert told.calls == [("a.lua:3", "look up host 'web'")]


@pytest.mark.parametrize(("error", "unavailable"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)])
def test_a_name_service_that_does_not_answer(
    told: Told, monkeypatch: pytest.MonkeyPatch, error: int, unavailable: bool
) -> None:
    def getaddrinfo(*_: object, **_options: object) -> None:
        raise socket.gaierror(error, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(InvalidValue, match="cannot look up host 'web': no answer"):
        told.network.address("web", "")
    assert told.network.unavailable is unavailable


def test_a_name_with_several_addresses(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "::1", "127.0.0.1")
    with pytest.raises(InvalidValue, match=r"host 'web' has 2 addresses, name one of them: ::1, 127\.0\.0\.1"):
        told.network.address("web", "")


def test_an_unknown_name_is_looked_up_once(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    for _ in range(2):
        with pytest.raises(InvalidValue, match="cannot look up host 'web': Name or service not known"):
            told.network.address("web", "")
    assert len(told.calls) == 1


def test_a_name_that_cannot_be_one(told: Told) -> None:
    for name in ("a" * 64, "a..b", "ä" * 64):
        with pytest.raises(InvalidValue, match="cannot look up host"):
            told.network.address(name, "")


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1"), ("0::1", "::1"), ("FE80::1%lo", "fe80::1%lo"), ("fe80::1%3", "fe80::1%3")],
)
def test_numbers_need_no_look_up(told: Told, host: str, address: str) -> None:
    assert told.network.address(host, "") == address
    assert told.calls == []


@pytest.mark.parametrize(
    "host",
    ["", "a b", "\n", "a\0b", "a\x1bb", "\udcff", "fe80::1%", "fe80::1%a\0b", "fe80::1%a b", "fe80::1%4294967296"],
)
def test_not_a_host(told: Told, host: str) -> None:
    with pytest.raises(InvalidValue, match="is not an address"):
        told.network.address(host, "")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_port_of_either_protocol(told: Told, protocol: str) -> None:
    assert told.network.port("tftp", protocol) == 69  # which the database has for udp alone
    assert told.network.port("17", protocol) == 17


@pytest.mark.parametrize("name", ["65536", "99999999", "tftpp", "", "-1", "\udcff", "²", "٣", "a\0b", "x" * 100000])
def test_not_a_port(told: Told, name: str) -> None:
    with pytest.raises(InvalidValue):
        told.network.port(name, "tcp")
