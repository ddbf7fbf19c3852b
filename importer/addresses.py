"""Addresses of services: two definitions cannot have the same one."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from importer.ledger import Directive
from importer.result import Definition
from importer.values import Code, Value, call

ANY = "*"
ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104  written into definitions, not bound to
UNIX = ("stream", "dgram", "seqpacket")


@dataclass(frozen=True, slots=True)
class Address:
    """A socket: `kind` is the constructor, `port` the port as it is written, or the path of a Unix socket."""

    kind: str
    port: str
    host: str = ANY

    @property
    def key(self) -> tuple[str, str]:
        """Identity of a socket: two that have the same are in each other's way."""
        if self.kind in UNIX:
            return "unix", self.port
        return self.kind, str(port_number(self.port, self.kind) or self.port)

    def meets(self, other: Address) -> bool:
        """Whether the hosts overlap; the keys are the same."""
        return (
            self.kind in UNIX
            or self.host == other.host
            or _covers(self.host, other.host)
            or _covers(other.host, self.host)
        )

    def constructor(self, **options: Value) -> Code:
        if self.kind in UNIX:
            return call(self.kind, self.port, **options)
        if self.host == ANY_V6:
            options = {"v6only": True, **options}
        return call(self.kind, self.host, number(self.port), **options)

    def __str__(self) -> str:
        return self.port if self.kind in UNIX else f"{self.kind} {self.host} {self.port}"


@dataclass(slots=True)
class Claims:
    """Addresses that directives of a source have; the first one keeps an address."""

    _taken: dict[tuple[str, str], list[tuple[Address, Directive]]] = field(default_factory=dict)

    def claim(self, address: Address, owner: Directive) -> Directive | None:
        """Return None, or who has the address."""
        others = self._taken.setdefault(address.key, [])
        taken = next((who for other, who in others if address.meets(other)), None)
        if taken is None:
            others.append((address, owner))
        return taken


def serve(definition: Definition, sockets: Sequence[Code], connections: bool) -> None:
    """Give a service sockets to accept from, or the only one of them as its standard input."""
    if connections:
        definition.set("fd", sockets)
    else:
        (only,) = sockets
        definition.set("stdin", only)
        definition.set("kill_mode", "process")  # inetd leaves processes alone that still serve a client


def port_number(port: str, kind: str) -> int | None:
    """Return the number of a port, or None for a name that this host does not know."""
    if port.isdecimal():
        return int(port) if int(port) <= 65535 else None
    for protocol in (kind, "udp" if kind == "tcp" else "tcp"):
        try:
            return socket.getservbyname(port, protocol)
        except OSError:
            continue
    return None


def number(text: str) -> Value:
    """Return a number where the text is one as Lua writes it, such as a port or an argument."""
    return int(text) if text.isdecimal() and text.isascii() and str(int(text[:16])) == text else text


def _covers(one: str, other: str) -> bool:
    if one == ANY:
        return True
    v6 = ":" in other
    return (one == ANY_V4 and not v6) or (one == ANY_V6 and v6)
