from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER
from workers.accessory.client import encode_request
from workers.accessory.protocol import (
    MAX_DATAGRAM,
    MAX_MESSAGE,
    Command,
    ProtocolError,
    Request,
    encode_datagram,
    encode_error,
    encode_packet,
    encode_reply,
    packets,
    parse_request,
    split_maps,
)

NAME = encode_packet(Command.NAME, b"a")
IPC = encode_packet(Command.IPC_NAMESPACE)
PID = encode_packet(Command.PID_NAMESPACE)
LEASE = encode_packet(Command.LEASE_PIPE)


def test_a_datagram_to_the_byte() -> None:
    body = b"\3\0\1\0abc\0" + b"\0\0\2\0"
    expected = struct.pack("=II", 0x63046173, zlib.crc32(body)) + body
    assert encode_datagram([encode_packet(Command.NAME, b"abc"), IPC]) == expected
    assert parse_request(expected) == Request("abc", ipc=True)


def test_replies_to_the_byte() -> None:
    assert list(packets(encode_reply((CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER), True))) == [
        (1, struct.pack("=III", 0x08000000, 0x20000000, 0x10000000)),
        (2, b""),
    ]
    assert list(packets(encode_reply((CLONE_NEWPID,), False))) == [(1, struct.pack("=I", 0x20000000))]
    assert list(packets(encode_reply((), True))) == [(2, b"")]


def test_an_error_fits_into_what_clients_receive() -> None:
    ((response, text),) = packets(encode_error("no: " + "x" * 5000))
    assert (response, len(text)) == (0, MAX_MESSAGE)
    assert len(encode_error("x" * 5000)) <= 1024
    ((_, text),) = packets(encode_error("caf\u00e9"))
    assert text == b"caf\\xe9"


def test_the_order_of_packets_is_free() -> None:
    for order in ([NAME, IPC, PID, LEASE], [LEASE, PID, IPC, NAME], [IPC, NAME, LEASE, PID]):
        assert parse_request(encode_datagram(order)) == Request("a", ipc=True, pid=True, lease=True)


def test_what_nobody_knows_is_ignored() -> None:
    unknown = [encode_packet(number, b"xyz") for number in (6, 77, 0xFFFF, 77)]
    assert parse_request(encode_datagram([*unknown, NAME, IPC])) == Request("a", ipc=True)
    nops = [encode_packet(Command.NOP, b"whatever"), encode_packet(Command.NOP)]
    assert not parse_request(encode_datagram([*nops, *unknown])).asks_for_something
    assert not parse_request(encode_datagram([])).asks_for_something
    assert not parse_request(encode_datagram([NAME])).asks_for_something


@pytest.mark.parametrize("name", ["/", "..", "\x7f", " ", "a" * 60000, "a\\b'\""])
def test_a_name_is_a_key(name: str) -> None:
    assert parse_request(encode_request(name, ipc=True)).name == name


@pytest.mark.parametrize("payload", [b"", b"0 0 1", b"0 0 1\x000 0 1", b"\0", b"x" * 60000])
def test_the_payload_of_a_user_namespace_is_kept_as_it_is(payload: bytes) -> None:
    assert parse_request(encode_request("a", user=payload)) == Request("a", user=payload)


def test_maps() -> None:
    assert split_maps(b"0 0 1") == (b"0 0 1", b"")
    assert split_maps(b"0 0 1\x001 1 1") == (b"0 0 1", b"1 1 1")
    assert split_maps(b"\x001 1 1") == (b"", b"1 1 1")
    assert split_maps(b"") == (b"", b"")


def broken_crc() -> bytes:
    whole = bytearray(encode_datagram([NAME, IPC]))
    whole[-1] ^= 1
    return bytes(whole)


def framed(body: bytes) -> bytes:
    return encode_datagram([body])


@pytest.mark.parametrize(
    ("datagram", "why"),
    [
        (b"", "shorter than its header"),
        (b"1234567", "shorter than its header"),
        (b"x" * 40, "bad magic"),
        (broken_crc(), "bad CRC"),
        (framed(IPC), "without NAME"),
        (framed(LEASE), "without NAME"),
        (framed(encode_packet(Command.USER_NAMESPACE)), "without NAME"),
        (framed(encode_packet(Command.NAME)), "empty NAME"),
        (framed(encode_packet(Command.NAME, b"a\nb") + IPC), "malformed NAME"),
        (framed(encode_packet(Command.NAME, b"a\0b")), "malformed NAME"),
        (framed(encode_packet(Command.NAME, b"\x80")), "malformed NAME"),
        (framed(NAME + NAME), "NAME twice"),
        (framed(NAME + IPC + IPC), "IPC_NAMESPACE twice"),
        (framed(NAME + LEASE + LEASE), "LEASE_PIPE twice"),
        (framed(NAME + encode_packet(Command.USER_NAMESPACE) * 2), "USER_NAMESPACE twice"),
        (framed(NAME + encode_packet(Command.IPC_NAMESPACE, b"x")), "IPC_NAMESPACE with a payload"),
        (framed(NAME + encode_packet(Command.PID_NAMESPACE, b"x")), "PID_NAMESPACE with a payload"),
        (framed(NAME + encode_packet(Command.LEASE_PIPE, b"x")), "LEASE_PIPE with a payload"),
        (framed(NAME + b"\0\0"), "header cut off"),
        (framed(NAME + b"\5\0\1\0abcd"), "cut off"),
        (framed(b"\1\0\1\0a"), "cut off"),  # without its padding
        (framed(b"\xff\xff\0\0"), "cut off"),
        (b"x" * (MAX_DATAGRAM + 1), "longer than"),
    ],
)
def test_what_is_malformed(datagram: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        parse_request(datagram)


@given(st.lists(st.tuples(st.integers(0, 8), st.binary(max_size=12)), max_size=6), st.binary(max_size=6))
def test_nothing_but_a_request_or_a_protocol_error(parts: list[tuple[int, bytes]], rest: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(parse_request(framed(b"".join(encode_packet(*part) for part in parts) + rest)), Request)
