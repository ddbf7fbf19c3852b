"""Requests and replies as bytes: datagrams of packets, pure functions; and the errors that clients hear of.

    u32 magic, u32 CRC-32 of all that follows, then packets: u16 size, u16 command, payload, zeros up to a multiple of 4

All integers are in native byte order. The packets of one datagram form one request, in any order.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER

MAGIC = 0x63046173
MAX_DATAGRAM = 65536  # bytes
MAX_MESSAGE = 900  # bytes of an error's text: clients receive into a buffer of 1,024

_HEADER = struct.Struct("=II")
_PACKET = struct.Struct("=HH")
_FLAG = struct.Struct("=I")


class AccessoryError(Exception):
    """Root of all exceptions that the accessory itself raises; the text is for the client."""


class ProtocolError(AccessoryError):
    """The client broke the protocol; it gets the error, and its connection ends."""


class NotAllowed(AccessoryError):
    """No rule admits the client; it gets the error, and its connection ends."""


class Refused(AccessoryError):
    """The client may not have this, or has too much already; the connection stays usable."""


class OptionsError(AccessoryError):
    """The options of the definition are wrong."""


class Command(IntEnum):
    NOP = 0
    NAME = 1
    IPC_NAMESPACE = 2
    PID_NAMESPACE = 3
    USER_NAMESPACE = 4
    LEASE_PIPE = 5


class Response(IntEnum):
    ERROR = 0
    NAMESPACE_HANDLES = 1
    LEASE_PIPE = 2


@dataclass(frozen=True, slots=True)
class Request:
    """The request in a datagram. `user` is the payload of its USER_NAMESPACE, None without one."""

    name: str = ""
    ipc: bool = False
    pid: bool = False
    user: bytes | None = None
    lease: bool = False

    @property
    def asks_for_something(self) -> bool:
        return self.ipc or self.pid or self.user is not None or self.lease

    @property
    def kinds(self) -> tuple[int, ...]:
        """The namespaces of the reply, in its order, as CLONE_* flags."""
        wanted = (self.ipc, CLONE_NEWIPC), (self.pid, CLONE_NEWPID), (self.user is not None, CLONE_NEWUSER)
        return tuple(flag for is_wanted, flag in wanted if is_wanted)


def parse_request(datagram: bytes) -> Request:
    """Parse the request in a datagram; unknown commands are ignored. Raises ProtocolError."""
    fields: dict[str, object] = {}
    for command, payload in packets(datagram):
        take = _COMMANDS.get(command)
        if take is None:
            continue
        key, value = take(payload)
        if key in fields:
            raise ProtocolError(f"{Command(command).name} twice in one request")
        fields[key] = value
    request = Request(**fields)  # type: ignore[arg-type]  # each is what its function returns
    if request.asks_for_something and not request.name:
        raise ProtocolError("request without NAME")
    return request


def packets(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield command and payload of each packet. Raises ProtocolError if the framing is wrong."""
    if len(datagram) < _HEADER.size:
        raise ProtocolError(f"datagram of {len(datagram)} bytes: shorter than its header")
    if len(datagram) > MAX_DATAGRAM:
        raise ProtocolError(f"datagram longer than {MAX_DATAGRAM} bytes")
    magic, crc = _HEADER.unpack_from(datagram)
    if magic != MAGIC:
        raise ProtocolError(f"bad magic {magic:#010x}")
    if crc != zlib.crc32(memoryview(datagram)[_HEADER.size :]):
        raise ProtocolError("bad CRC")
    at = _HEADER.size
    while at < len(datagram):
        if at + _PACKET.size > len(datagram):
            raise ProtocolError("packet header cut off")
        size, command = _PACKET.unpack_from(datagram, at)
        at += _PACKET.size
        end = at + size
        if end + (-size & 3) > len(datagram):
            raise ProtocolError(f"payload of command {command} cut off")
        yield command, datagram[at:end]
        at = end + (-size & 3)


def _name(payload: bytes) -> tuple[str, str]:
    if not payload:
        raise ProtocolError("empty NAME")
    if min(payload) < 0x20 or max(payload) > 0x7F:
        raise ProtocolError("malformed NAME: not 7-bit ASCII without control characters")
    return "name", payload.decode("ascii")


def _flag(command: Command, key: str) -> Callable[[bytes], tuple[str, bool]]:
    def take(payload: bytes) -> tuple[str, bool]:
        if payload:
            raise ProtocolError(f"{command.name} with a payload")
        return key, True

    return take


_COMMANDS: dict[int, Callable[[bytes], tuple[str, object]]] = {
    Command.NAME: _name,
    Command.IPC_NAMESPACE: _flag(Command.IPC_NAMESPACE, "ipc"),
    Command.PID_NAMESPACE: _flag(Command.PID_NAMESPACE, "pid"),
    Command.USER_NAMESPACE: lambda payload: ("user", payload),
    Command.LEASE_PIPE: _flag(Command.LEASE_PIPE, "lease"),
}


def split_maps(payload: bytes) -> tuple[bytes, bytes]:
    """Return `uid_map` and `gid_map` of a USER_NAMESPACE; an empty one is not written."""
    uid_map, _, gid_map = payload.partition(b"\0")
    return uid_map, gid_map


@lru_cache(maxsize=16)
def encode_reply(kinds: tuple[int, ...], lease: bool) -> bytes:
    """Return the answer to a fulfilled request; its descriptors are in the same order."""
    reply = []
    if kinds:
        reply.append(encode_packet(Response.NAMESPACE_HANDLES, b"".join(map(_FLAG.pack, kinds))))
    if lease:
        reply.append(encode_packet(Response.LEASE_PIPE))
    return encode_datagram(reply)


def encode_error(message: str) -> bytes:
    text = message.encode("ascii", "backslashreplace")[:MAX_MESSAGE]
    return encode_datagram([encode_packet(Response.ERROR, text)])


def encode_packet(command: int, payload: bytes = b"") -> bytes:
    return _PACKET.pack(len(payload), command) + payload + bytes(-len(payload) & 3)


def encode_datagram(encoded: Sequence[bytes]) -> bytes:
    body = b"".join(encoded)
    return _HEADER.pack(MAGIC, zlib.crc32(body)) + body
