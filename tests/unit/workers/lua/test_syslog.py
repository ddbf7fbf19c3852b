"""`syslog`: what arrives where the system's log listens, and what becomes of it where nobody does."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.lua.calls import failed
from workers.lua.syslog import Syslog


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def server(place: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(place)
        listening.settimeout(60)
        yield listening


def test_messages(place: str, server: socket.socket) -> None:
    syslog = Syslog(place)
    syslog.ident = "net"
    log: Any = syslog.functions["log"]
    assert log(b"info", b"up\xff") is True
    assert re.fullmatch(rb"<30>net\[\d+\]: up\xff", server.recv(1000))
    assert log(b"emerg", b"down") is True
    assert server.recv(1000) == b"<24>net[%d]: down" % os.getpid()
    assert syslog.functions["open"](b"other") is True
    log(b"debug", b"x")
    assert server.recv(1000).startswith(b"<31>other[")
    assert syslog.functions["close"]() is True
    log(b"err", b"again")
    assert server.recv(1000).startswith(b"<27>other[")
    syslog.close()


def test_a_log_that_was_restarted(place: str, server: socket.socket) -> None:
    syslog = Syslog(place)
    log: Any = syslog.functions["log"]
    log(b"info", b"one")
    server.close()
    os.unlink(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
        another.bind(place)
        another.settimeout(60)
        assert log(b"info", b"two") is True
        assert another.recv(1000).endswith(b": two")
    syslog.close()


def test_without_a_log_it_goes_to_stderr(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    syslog = Syslog(place)
    syslog.ident = "net"
    log: Any = syslog.functions["log"]
    assert log(b"warning", b"two\nlines") is True
    assert capfd.readouterr().err == "net: warning: two lines\n"


def test_a_message_that_is_too_long_is_told(place: str, server: socket.socket) -> None:
    syslog = Syslog(place)
    log: Any = syslog.functions["log"]
    assert log(b"info", b"x" * (1 << 22)) == (None, "Message too long", 90)
    syslog.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('syslog.log("loud", "x")', "bad argument #1 to 'log' ('emerg' or 'alert' or"),
        ('syslog.log("info")', "bad argument #2 to 'log' (string expected, got nil)"),
        ("syslog.log()", "bad argument #1 to 'log' (string expected, got nil)"),
        ('syslog.log("info", "x", "y")', "bad argument #3 to 'log' (no more than 2 expected)"),
    ],
)
def test_wrong_calls(body: str, message: str) -> None:
    assert failed(body).startswith(message)
