"""Properties of systemd's units, asked for on its private socket as `systemctl` does.

A process of `systemctl` takes a fifth of a second on an emulated processor, as it asks for all properties, and checks
ask hundreds of times.  The messages are those of the D-Bus specification: little-endian, and padded to the size of what
follows.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable

SOCKET = "/run/systemd/private"
TIMEOUT_S = 60.0
FOLDER = "/org/freedesktop/systemd1/unit/"
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, REPLY_SERIAL, SIGNATURE = 1, 2, 3, 5, 8  # fields of a header
NUMBERS = {"b": "<I", "i": "<i", "u": "<I", "x": "<q", "t": "<Q"}


class NoProperty(Exception):
    """An error that systemd has answered."""


def get(unit: str, name: str) -> str | int:
    """A property of a unit, of one type of units or of them all.  Raises NoProperty."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(SOCKET)
        stream = sock.makefile("rb")
        sock.sendall(b"\0AUTH EXTERNAL %s\r\nBEGIN\r\n" % str(os.geteuid()).encode().hex().encode())
        if not (answer := stream.readline()).startswith(b"OK "):
            raise ConnectionError(f"systemd does not let root in: {answer!r}")
        problems = []
        for serial, interface in enumerate(("Unit", unit.rpartition(".")[2].capitalize()), start=1):
            sock.sendall(_call(serial, FOLDER + _escape(unit), f"org.freedesktop.systemd1.{interface}", name))
            kind, body = _reply(stream.read, serial)
            if kind == METHOD_RETURN:
                return _variant(body)
            problems.append(body)
    raise NoProperty(f"{name} of {unit}: {problems}")


def _escape(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]|^[0-9]", lambda match: f"_{ord(match[0]):02x}", name)


def _padded(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _call(serial: int, path: str, interface: str, name: str) -> bytes:
    """Of Properties.Get, for one of an interface."""
    fields = b""
    texts = (PATH, b"o", path), (INTERFACE, b"s", "org.freedesktop.DBus.Properties"), (MEMBER, b"s", "Get")
    for field, kind, text in texts:
        fields = _padded(fields, 8) + bytes([field, 1]) + kind + b"\0" + _text(text)
    fields = _padded(fields, 8) + bytes([SIGNATURE, 1]) + b"g\0" + b"\2ss\0"
    body = _padded(_text(interface), 4) + _text(name)
    head = b"l" + bytes([METHOD_CALL, 0, 1]) + struct.pack("<III", len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def _reply(read: Callable[[int], bytes], serial: int) -> tuple[int, bytes]:
    """Kind and body of the answer to a call; signals may come before it."""
    while True:
        head = read(16)
        if len(head) < 16:
            raise ConnectionError("systemd has closed its connection")
        length, _, fields_length = struct.unpack("<III", head[4:])
        fields = read(fields_length + -fields_length % 8)
        body = read(length)
        # a field of a number: its code, the signature "u", the number
        answers = bytes([REPLY_SERIAL, 1]) + b"u\0" + struct.pack("<I", serial) in fields
        if head[1] in (METHOD_RETURN, ERROR) and answers:
            return head[1], body


def _variant(body: bytes) -> str | int:
    kind = body[1:2].decode()
    if kind in NUMBERS:
        size = struct.calcsize(NUMBERS[kind])
        number: int = struct.unpack_from(NUMBERS[kind], body, max(size, 4))[0]
        return number
    if kind in ("s", "o"):
        (length,) = struct.unpack_from("<I", body, 4)
        return body[8 : 8 + length].decode()
    raise NoProperty(f"of a type that nobody has asked for before: {body!r}")
