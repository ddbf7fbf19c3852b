"""Socket addresses in the notation of scripts, and the host's resolver for addresses with names.

    192.0.2.1  192.0.2.1:80  2001:db8::1  [2001:db8::1]  [fe80::1%eth0]:80  host  host:80  host:http  /path  @abstract

The C function of the resolver is called in our own threads, so it never blocks the loop. A name server that
does not answer occupies a thread until the resolver gives up. Nothing waits for these threads, not even at
the end of the process, where asyncio would wait for those of its executor.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from workers.lua.state import Failure, Opaque

CONTROL_PORT = 5478  # of beng-proxy's control protocol
_LONGEST_PATH = 107  # bytes in sockaddr_un without the NUL, which ends a path and begins an abstract name
_THREADS = 4  # that may wait for name servers at a time


@dataclass(frozen=True, slots=True)
class Address(Opaque):
    """An address of `family`, in the format of the module `socket`."""

    family: int
    sockaddr: tuple[Any, ...] | bytes

    def __str__(self) -> str:
        match self.sockaddr:
            case bytes(name):
                return ("@" + name[1:].decode(errors="replace")) if name[:1] == b"\0" else name.decode(errors="replace")
            case (host, port):
                return f"{host}:{port}"
            case (host, port, _flow, 0):
                return f"[{host}]:{port}"
            case (host, port, _flow, scope):
                return f"[{str(host).partition('%')[0]}%{_interface(int(scope))}]:{port}"
        raise AssertionError(self.sockaddr)


@dataclass(frozen=True, slots=True)
class Name:
    """The query to the resolver."""

    host: str
    port: str


def parse(text: bytes, port: int | None = None) -> Address | Name:
    """Parse an address; `port` is the default, without which a port is required. Raises Failure with the problem."""
    if b"\0" in text or not text:
        raise Failure(f"cannot use address {_shown(text)}: it is empty or has a NUL in it")
    if text[:1] in (b"/", b"@"):
        return _local(text)
    host, given = _split(text.decode(errors="surrogateescape"))
    if given is None and port is None:
        raise Failure(f"cannot use address {_shown(text)}: no port in it")
    number = str(port) if given is None else given
    if not host or not number:
        raise Failure(f"cannot use address {_shown(text)}: host or port is empty")
    if number.isdecimal() and not 0 < int(number) < 65536:
        raise Failure(f"cannot use address {_shown(text)}: port {number} is not from 1 to 65535")
    return _numeric(host, number) or _name(text, host, number)


def _numeric(host: str, port: str) -> Address | None:
    """Return the address; None if the resolver is needed, for host or port. Raises Failure."""
    address, percent, scope = host.partition("%")
    try:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=flags)[0]
    except (OSError, UnicodeError):
        return None
    if found[0] == socket.AF_INET:
        return None if percent else Address(socket.AF_INET, found[4])
    number = _scope(scope) if percent else 0
    return Address(socket.AF_INET6, (found[4][0], found[4][1], 0, number))


def _name(text: bytes, host: str, port: str) -> Name:
    if ":" in host or "%" in host:
        raise Failure(f"cannot use address {_shown(text)}: {host!r} is not an IPv6 address")
    return Name(host, port)


def _local(text: bytes) -> Address:
    if len(text) > _LONGEST_PATH or text == b"@":
        raise Failure(f"cannot use address {_shown(text)}: it has not from 1 to {_LONGEST_PATH} bytes")
    return Address(socket.AF_UNIX, b"\0" + text[1:] if text[:1] == b"@" else text)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise Failure(f"cannot use address {text!r}: expected '[IPv6 address]:port'")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _scope(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else socket.if_nametoindex(name)
    except OSError as error:
        raise Failure(f"cannot use interface {name!r}: no such interface") from error


def _interface(number: int) -> str:
    try:
        return socket.if_indextoname(number)
    except OSError:
        return str(number)


def _shown(text: bytes) -> str:
    return repr(text.decode(errors="backslashreplace"))


_Request = tuple[Name, int, "asyncio.Future[list[Address]]"]


class Resolver:
    """The resolver. Owns its threads, which start with the first name to look up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def addresses(self, text: bytes, kind: int, port: int | None = None) -> list[Address]:
        """Return at least one address of `text`; `kind` is SOCK_STREAM, …, `port` a default. Raises Failure."""
        parsed = parse(text, port)
        if isinstance(parsed, Address):
            return [parsed]
        if len(self._threads) < _THREADS:
            self._threads.append(threading.Thread(target=self._serve, name="resolver", daemon=True))
            self._threads[-1].start()
        answer: asyncio.Future[list[Address]] = self._loop.create_future()
        self._requests.put((parsed, kind, answer))
        return await answer

    def close(self) -> None:
        for _ in self._threads:
            self._requests.put(None)

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            name, kind, answer = request
            found: list[Address] | Failure
            try:
                found = _resolve(name, kind)
            except Failure as failure:
                found = failure
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_set, answer, found)


def _resolve(name: Name, kind: int) -> list[Address]:
    try:
        try:
            found = socket.getaddrinfo(name.host, name.port, type=kind)
        except socket.gaierror as error:
            if error.errno != socket.EAI_SERVICE:
                raise
            found = socket.getaddrinfo(name.host, name.port)  # a service that is known for another kind of socket
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise Failure(f"cannot resolve {name.host!r}, port {name.port!r}: {cause}") from error
    return [Address(family, sockaddr) for family, _type, _protocol, _canonical, sockaddr in found]


def _set(answer: asyncio.Future[list[Address]], found: list[Address] | Failure) -> None:
    if answer.done():
        return
    if isinstance(found, Failure):
        answer.set_exception(found)
    else:
        answer.set_result(found)
