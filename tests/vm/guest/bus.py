"""Properties and jobs of systemd's units, over its private socket as `systemctl` has them.

A process of `systemctl` takes a fifth of a second on an emulated processor, and checks would need hundreds.  The
messages are those of the D-Bus specification: little-endian, and padded to the size of what follows.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from io import BytesIO
from typing import IO

SOCKET = "/run/systemd/private"
TIMEOUT_S = 180.0  # longer than a unit that hangs takes to stop
MANAGER = "/org/freedesktop/systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"
METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, REPLY_SERIAL, SIGNATURE = 1, 2, 3, 5, 8  # fields of a header
NUMBERS = {"b": "<I", "i": "<i", "u": "<I", "x": "<q", "t": "<Q"}


class BusError(Exception):
    """An error that systemd has answered."""


class Bus:
    """A connection that is made when it is needed, and kept: systemd takes a twentieth of a second to prepare one.

    It gets all signals, with which a reload of systemd takes three times as long: it is to be closed before.
    """

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._stream: IO[bytes] = BytesIO()
        self._serial = 0

    def call(self, path: str, interface: str, member: str, *texts: str) -> bytes:
        """Return the body of the answer. Raises BusError."""
        self._serial += 1
        # a field of a number: its code, the signature "u", the number
        answers = bytes([REPLY_SERIAL, 1]) + b"u\0" + struct.pack("<I", self._serial)
        self._connected().sendall(_call(self._serial, path, interface, member, texts))
        while True:
            kind, fields, body = self.message()
            if kind == METHOD_RETURN and answers in fields:
                return body
            if kind == ERROR and answers in fields:
                raise BusError(f"{member}{texts}: {body!r}")

    def message(self) -> tuple[int, bytes, bytes]:
        """Return kind, fields and body of the next message, which may be a signal that nobody has asked for."""
        head = self._stream.read(16)
        if len(head) < 16:
            raise ConnectionError("systemd has closed its connection")
        length, _, fields_length = struct.unpack("<III", head[4:])
        fields = self._stream.read(fields_length + -fields_length % 8)
        return head[1], fields, self._stream.read(length)

    def close(self) -> None:
        if self._sock is not None:
            self._stream.close()
            self._sock.close()
            self._sock = None

    def _connected(self) -> socket.socket:
        """Raises ConnectionError."""
        if self._sock is None:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.settimeout(TIMEOUT_S)
            self._sock.connect(SOCKET)
            self._stream = self._sock.makefile("rb")
            self._sock.sendall(b"\0AUTH EXTERNAL %s\r\nBEGIN\r\n" % str(os.geteuid()).encode().hex().encode())
            if not (answer := self._stream.readline()).startswith(b"OK "):
                raise ConnectionError(f"systemd does not let root in: {answer!r}")
        return self._sock


BUS = Bus()


def get(unit: str, name: str) -> str | int:
    """A property of a unit, of one type of units or of them all.  Raises BusError."""
    path = f"{MANAGER}/unit/{_escape(unit)}"
    try:
        body = BUS.call(path, PROPERTIES, "Get", "org.freedesktop.systemd1.Unit", name)
    except BusError:
        kind = unit.rpartition(".")[2].capitalize()
        body = BUS.call(path, PROPERTIES, "Get", f"org.freedesktop.systemd1.{kind}", name)
    return _variant(body)


def do(method: str, unit: str) -> str:
    """Have a unit started (`StartUnit`) or stopped (`StopUnit`), and return the result of the job: "done", "failed", …

    Raises BusError.
    """
    (job,) = _texts(BUS.call(MANAGER, "org.freedesktop.systemd1.Manager", method, unit, "replace"), 0, 1)
    while True:
        kind, fields, body = BUS.message()
        if kind == SIGNAL and b"JobRemoved\0" in fields:
            removed, _unit, result = _texts(body, 4, 3)  # after a number
            if removed == job:
                return result


def _escape(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]|^[0-9]", lambda match: f"_{ord(match[0]):02x}", name)


def _padded(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _texts(body: bytes, at: int, count: int) -> list[str]:
    """Return so many strings or paths, which follow each other from `at` on."""
    found = []
    for _ in range(count):
        at += -at % 4
        (length,) = struct.unpack_from("<I", body, at)
        found.append(body[at + 4 : at + 4 + length].decode())
        at += 4 + length + 1
    return found


def _call(serial: int, path: str, interface: str, member: str, texts: tuple[str, ...]) -> bytes:
    fields = b""
    for field, kind, text in ((PATH, b"o", path), (INTERFACE, b"s", interface), (MEMBER, b"s", member)):
        fields = _padded(fields, 8) + bytes([field, 1]) + kind + b"\0" + _text(text)
    signature = bytes([len(texts)]) + b"s" * len(texts) + b"\0"
    fields = _padded(fields, 8) + bytes([SIGNATURE, 1]) + b"g\0" + signature
    body = b""
    for text in texts:
        body = _padded(body, 4) + _text(text)
    head = b"l" + bytes([METHOD_CALL, 0, 1]) + struct.pack("<III", len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def _variant(body: bytes) -> str | int:
    kind = body[1:2].decode()
    if kind in NUMBERS:
        size = struct.calcsize(NUMBERS[kind])
        number: int = struct.unpack_from(NUMBERS[kind], body, max(size, 4))[0]
        return number
    if kind in ("s", "o"):
        return _texts(body, 4, 1)[0]
    raise BusError(f"of a type that nobody has asked for before: {body!r}")
