"""The content of a datagram."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.notify.receiver import DEFAULT_NAME, MAX_NAME, Message, legal_name, parse

KEYS = ["READY", "RELOADING", "STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "FDSTORE", "FDSTOREREMOVE", "FDNAME"]
KEYS += ["FDPOLL", "BARRIER", "MAINPID", "X"]
VALUES = ["", "0", "1", "11", "trigger", "a:b", "9" * 30, "-1", "\u0663", "x" * 300]
values = st.sampled_from(VALUES) | st.text(max_size=5)
lines = st.builds(lambda key, value: f"{key}={value}", st.sampled_from(KEYS), values) | st.text(max_size=8)


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (b"", {}),
        (b"READY=1", {"ready": True}),
        (b"READY=1\n", {"ready": True}),
        (b"READY=0", {}),
        (b"READY", {}),
        (b"ready=1", {}),
        (b"RELOADING=1\nMONOTONIC_USEC=12", {"reloading": True}),
        (b"READY=1\nSTATUS=all is well = fine\nMAINPID=3", {"ready": True, "status": "all is well = fine"}),
        (b"STATUS=", {"status": ""}),
        (b"STATUS=\xffx", {"status": "\\xffx"}),
        (b"WATCHDOG=1", {"watchdog": True}),
        (b"WATCHDOG=trigger", {"watchdog_trigger": True}),
        (b"EXTEND_TIMEOUT_USEC=5000000", {"extend_usec": 5_000_000}),
        (b"X_SPAWND_BUSY=1", {"busy": True}),
        (b"X_SPAWND_BUSY=0", {"busy": False}),
        (b"X_SPAWND_BUSY=yes", {}),
        (b"EXTEND_TIMEOUT_USEC=-5", {}),
        (b"EXTEND_TIMEOUT_USEC=1e6", {}),
        ("EXTEND_TIMEOUT_USEC=\u0665".encode(), {}),
        (b"EXTEND_TIMEOUT_USEC=" + b"9" * 5000, {}),
        (b"FDSTORE=1", {"store": True}),
        (b"FDSTORE=1\nFDNAME=a b\nFDPOLL=0", {"store": True, "name": "a b", "poll": False}),
        (b"FDSTORE=1\nFDNAME=a:b", {"store": True}),
        (b"FDSTORE=1\nFDNAME=", {"store": True}),
        (b"FDSTOREREMOVE=1\nFDNAME=a", {"remove": True, "name": "a"}),
        (b"BARRIER=1", {}),
    ],
)
def test_parse(datagram: bytes, expected: dict[str, Any]) -> None:
    assert parse(datagram) == Message()._replace(**expected)


@pytest.mark.parametrize("name", [b"", b"\nFDNAME=", b"\nFDNAME=a:b", b"\nFDNAME=\xc3\xa4"])
def test_a_removal_without_a_usable_name_removes_nothing(name: bytes) -> None:
    assert not parse(b"FDSTOREREMOVE=1" + name).remove


@given(st.binary(max_size=300) | st.lists(lines, max_size=8).map(lambda said: "\n".join(said).encode(errors="replace")))
@example(b"=\n==\n\0=\0")
def test_garbage_never_raises_and_never_names_the_illegal(datagram: bytes) -> None:
    message = parse(datagram)
    assert legal_name(message.name)
    assert message.extend_usec is None or message.extend_usec >= 0


@given(st.permutations(["READY=1", "STATUS=a", "FDSTORE=1", "FDNAME=n", "UNKNOWN=\u1234", "WATCHDOG=1", "rubbish"]))
def test_the_order_of_lines_means_nothing(said: list[str]) -> None:
    expected = Message(ready=True, status="a", store=True, name="n", watchdog=True)
    assert parse("\n".join(said).encode()) == expected


@pytest.mark.parametrize("name", ["a", DEFAULT_NAME, " ", "~", "a/b", "x" * MAX_NAME])
def test_legal_names(name: str) -> None:
    assert legal_name(name)


@pytest.mark.parametrize("name", ["", "a:b", "x" * (MAX_NAME + 1), "a\nb", "\x1f", "\x7f", "\u00e4"])
def test_illegal_names(name: str) -> None:
    assert not legal_name(name)


@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=0x200), max_size=4))
def test_a_legal_name_can_stand_in_the_list_of_names(name: str) -> None:
    if legal_name(name):
        assert f"a:{name}:b".split(":") == ["a", name, "b"]
        assert name.isprintable()
        assert name.isascii()
