from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.control.errors import Malformed, NoSuchService
from supervisor.varlink.messages import (
    Call,
    Framer,
    Reply,
    encode_call,
    encode_error,
    encode_reply,
    parse_call,
    parse_reply,
)

MESSAGES = [b'{"a": 1}', b"", b"x" * 40, b"{}"]


def take_all(framer: Framer) -> list[bytes]:
    messages = []
    while (message := framer.take()) is not None:
        messages.append(message)
    return messages


def test_messages_split_at_every_byte() -> None:
    stream = b"".join(message + b"\0" for message in MESSAGES)
    for at in range(len(stream) + 1):
        framer = Framer()
        framer.feed(stream[:at])
        taken = take_all(framer)
        framer.feed(stream[at:])
        assert taken + take_all(framer) == MESSAGES
        assert framer.empty


@given(st.lists(st.binary().map(lambda data: data.replace(b"\0", b"")), max_size=8), st.integers(1, 7))
def test_messages_that_come_in_pieces(messages: list[bytes], piece: int) -> None:
    stream = b"".join(message + b"\0" for message in messages)
    framer, taken = Framer(), []
    for at in range(0, len(stream), piece):
        framer.feed(stream[at : at + piece])
        taken += take_all(framer)
    assert taken == messages


def test_the_longest_message() -> None:
    framer = Framer(limit=10)
    framer.feed(b"x" * 10)
    assert framer.take() is None
    framer.feed(b"\0")
    assert framer.take() == b"x" * 10


@pytest.mark.parametrize("data", [b"x" * 11, b"x" * 11 + b"\0", b"x" * 100 + b"\0y\0"])
def test_a_message_that_is_too_long(data: bytes) -> None:
    framer = Framer(limit=10)
    framer.feed(data)
    with pytest.raises(Malformed, match="longer than 10 bytes"):
        framer.take()


def test_messages_before_one_that_is_too_long_are_taken() -> None:
    framer = Framer(limit=10)
    framer.feed(b"a\0b\0" + b"x" * 11)
    assert [framer.take(), framer.take()] == [b"a", b"b"]
    with pytest.raises(Malformed):
        framer.take()


def test_a_call() -> None:
    assert parse_call(b'{"method":"a.B"}') == Call("a.B", {})
    full = {"method": "a.B", "parameters": {"x": [1]}, "more": True, "oneway": True, "upgrade": True, "com.x": {}}
    assert parse_call(json.dumps(full).encode()) == Call("a.B", {"x": [1]}, True, True, True)
    assert parse_call(b'{"method":"a.B","parameters":null,"more":null}') == Call("a.B", {})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"a.B"',
        b"{}",
        b'{"method":1}',
        b'{"method":"a.B","parameters":[]}',
        b'{"method":"a.B","parameters":"x"}',
        b'{"method":"a.B","more":1}',
        b'{"method":"a.B","oneway":"yes"}',
        b'{"method":"a.B"',
        b'{"method":"a.B"} {}',
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
    ],
)
def test_what_is_no_call(message: bytes) -> None:
    with pytest.raises(Malformed):
        parse_call(message)


@given(st.binary())
def test_anything_is_a_call_or_malformed(data: bytes) -> None:
    try:
        parse_call(data)
    except Malformed:
        pass


def test_replies() -> None:
    assert encode_reply({"x": "\0é"}) == b'{"parameters":{"x":"\\u0000\\u00e9"}}\0'
    assert json.loads(encode_reply({}, continues=True)[:-1]) == {"parameters": {}, "continues": True}
    assert json.loads(encode_error(NoSuchService("x"))[:-1]) == {
        "error": "io.spawnd.NoSuchService",
        "parameters": {"name": "x", "suggestion": None},
    }


@pytest.mark.parametrize(
    "call",
    [
        Call("a.B", {}),
        Call("a.B", {"x": [1, None, "\0é\ud800"]}, more=True),
        Call("a.B", {}, oneway=True, upgrade=True),
    ],
)
def test_a_call_that_is_passed_on_is_the_same(call: Call) -> None:
    message = encode_call(call)
    assert message.isascii()
    assert message.index(0) == len(message) - 1
    assert parse_call(message[:-1]) == call


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400"])
def test_what_json_cannot_write_is_not_read(number: bytes) -> None:
    with pytest.raises(Malformed, match="not JSON"):
        parse_call(b'{"method":"a.B","parameters":{"x":' + number + b"}}")


def test_replies_that_are_read() -> None:
    assert parse_reply(b"{}") == Reply({})
    assert parse_reply(b'{"parameters":{"x":1},"continues":true}') == Reply({"x": 1}, continues=True)
    assert parse_reply(b'{"error":"a.B","parameters":null}') == Reply({}, "a.B")
    for wrong in (b"[]", b'{"error":""}', b'{"error":1}', b'{"continues":"yes"}', b'{"parameters":1}', b""):
        with pytest.raises(Malformed):
            parse_reply(wrong)


def test_what_is_nested_too_deeply_is_not_written() -> None:
    value: list[object] = []
    for _ in range(400_000):
        value = [value]
    with pytest.raises(Malformed, match="nested too deeply"):
        encode_reply({"x": value})
    while value:  # or its end would be a recursion of its own
        value = value.pop()  # type: ignore[assignment]
