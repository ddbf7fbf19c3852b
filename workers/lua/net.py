"""`net`: interfaces, addresses and routes, for start-up scripts.

Functions return true or values, or `nil, message, errno` after an error. Lists go to the Lua part as bytes:
each item is followed by a NUL, and its fields are separated by tabs.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from errno import EINVAL
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workers.network.view import Link, NetworkError, View

if TYPE_CHECKING:
    from workers.network.stack import Stack

Value = Any  # None, bool, int, bytes, str, or a tuple of these
SETTINGS = {"mtu": "mtu", "mac": "address", "alias": "ifalias", "name": "ifname"}  # with the kernel's names

ANYWHERE = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}
_OCTETS = 6  # of a hardware address of Ethernet
_HEX = frozenset("0123456789abcdef")
LONGEST = {socket.AF_INET: 32, socket.AF_INET6: 128}


class Net:
    """Owns sockets in the network namespace in which each was first used."""

    name = "net"
    waiting: dict[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        made = (
            self.links, self.link, self.up, self.down, self.set, self.add, self.delete,
            self.addresses, self.add_address, self.delete_address,
            self.routes, self.add_route, self.delete_route,
        )  # fmt: skip
        self.functions: dict[str, Callable[..., Value]] = {each.__name__: _told(each) for each in made}

    @cached_property
    def _view(self) -> View:
        return View()

    @cached_property
    def _stack(self) -> Stack:
        from workers.network.stack import Stack  # 0.2 s, only for scripts that change something

        return Stack()

    def close(self) -> None:
        for made in ("_view", "_stack"):
            if made in self.__dict__:
                self.__dict__.pop(made).close()

    # interfaces

    def links(self) -> bytes:
        """Return the names of the interfaces."""
        return _listed([link.name] for link in self._view.links())

    def link(self, name: bytes) -> tuple[Value, ...]:
        """Return the fields in the order in which the Lua part names them."""
        link = self._link(name)
        facts = (link.kind or None, link.is_up, link.has_carrier, link.mtu, link.mac, link.alias or None)
        return (link.name, link.index, *facts)

    def up(self, name: bytes) -> None:
        link = self._link(name)
        self._stack.set_up(link.index, link.name)

    def down(self, name: bytes) -> None:
        link = self._link(name)
        self._stack.set_up(link.index, link.name, False)

    def set(self, name: bytes, mtu: int | None, mac: bytes | None, alias: bytes | None, new: bytes | None) -> None:
        """Change the values that are not nil; the new name comes last."""
        link = self._link(name)
        octets = None if mac is None else hardware_address(_text(mac)).encode()
        for what, value in (("mtu", mtu), ("mac", octets), ("alias", alias), ("name", new)):
            if value is not None:
                plain = _text(value) if isinstance(value, bytes) else value
                self._stack.set_link(link.index, link.name, f"{what} {plain}", **{SETTINGS[what]: plain})

    def add(self, name: bytes, kind: bytes, peer: bytes | None, parent: bytes | None, number: int | None) -> None:
        """Make a virtual interface; a pair has a `peer`, a VLAN has a `parent` and a number."""
        options: dict[str, Any] = {}
        if peer is not None:
            options["peer"] = {"ifname": _text(peer)}
        if parent is not None:
            options["link"] = self._link(parent).index
        if number is not None:
            options["vlan_id"] = number
        self._stack.add_link(_text(name), _text(kind), **options)

    def delete(self, name: bytes) -> None:
        link = self._link(name)
        self._stack.delete_link(link.index, link.name)

    # addresses

    def addresses(self, name: bytes) -> bytes:
        return _listed([address] for address in self._view.addresses(self._link(name).index) if address)

    def add_address(self, name: bytes, address: bytes) -> None:
        link = self._link(name)
        self._stack.add_address(link.index, link.name, with_prefix(_text(address)))

    def delete_address(self, name: bytes, address: bytes) -> None:
        link = self._link(name)
        self._stack.delete_address(link.index, link.name, with_prefix(_text(address)))

    # routes

    def routes(self, table: int) -> bytes:
        """Return network, gateway ('' for none), interface and metric of each route."""
        names = {link.index: link.name for link in self._view.links()}
        found = [route for route in self._view.routes() if route.table == table]
        return _listed([route.to, route.via, names.get(route.index, ""), str(route.metric)] for route in found)

    def add_route(
        self,
        to: bytes,
        via: bytes | None,
        name: bytes | None,
        metric: int | None,
        table: int | None,
        source: bytes | None,
        onlink: bool,
    ) -> None:
        network, gateway = _ends(to, via)
        own = plain_address(_text(source)) if source is not None else None
        if own is not None:
            check_family(own, network, "source")
        way = self._way(name, gateway)
        self._stack.add_route(network, index=way, via=gateway, onlink=onlink, metric=metric, table=table, source=own)

    def delete_route(
        self, to: bytes, via: bytes | None, name: bytes | None, metric: int | None, table: int | None
    ) -> None:
        network, gateway = _ends(to, via)
        index = self._link(name).index if name is not None else None
        self._stack.delete_route(network, index=index, via=gateway, own=False, metric=metric, table=table)

    # parts of the functions above

    def _way(self, name: bytes | None, gateway: str) -> int | None:
        """Return the index of the given interface, or None to have the kernel find that of the gateway."""
        if name is not None:
            return self._link(name).index
        if not gateway:
            raise NetworkError("add route", "neither a gateway nor an interface is given", errno.EINVAL)
        return None

    def _link(self, name: bytes) -> Link:
        text = _text(name)
        link = self._view.link(text)
        if link is None:
            raise NetworkError(f"find link {text!r}", os.strerror(errno.ENODEV), errno.ENODEV)
        return link


def _ends(to: bytes, via: bytes | None) -> tuple[str, str]:
    """Return the network and the gateway of a route, '' without one. Raises NetworkError."""
    gateway = plain_address(_text(via)) if via is not None else ""
    network = destination(_text(to), gateway)
    if gateway:
        check_family(gateway, network, "gateway")
    return network, gateway


def _told(function: Callable[..., Value]) -> Callable[..., Value]:
    """Wrap a function so that it returns `nil, message, errno` instead of raising, and true instead of nothing."""

    def call(*args: object) -> Value:
        try:
            result = function(*args)
        except NetworkError as error:
            return None, str(error), error.errno
        except OSError as error:
            number = error.errno or errno.EIO
            return None, os.strerror(number), number
        return True if result is None else result

    return call


def _listed(items: Any) -> bytes:
    return b"".join("\t".join(fields).encode() + b"\0" for fields in items)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NetworkError(f"use {value!r}", "it is not UTF-8", errno.EINVAL) from None


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def plain_address(text: str) -> str:
    """Return an address in the form of inet_ntop(3). Raises NetworkError."""
    family = family_of(text)
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise NetworkError(f"use {text!r}", "it is not an address", EINVAL) from None


def with_prefix(text: str) -> str:
    """Return `ADDRESS/PREFIX`; an address alone stands for one host. Raises NetworkError."""
    host, slash, prefix = text.partition("/")
    most = LONGEST[family_of(host)]
    if slash and not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and int(prefix) <= most):
        raise NetworkError(f"use {text!r}", f"the prefix goes from 0 to {most}", EINVAL)
    return f"{plain_address(host)}/{int(prefix) if slash else most}"


def destination(text: str, via: str) -> str:
    """Return a network with its prefix. Raises NetworkError.

    `default` stands for every address of the gateway's family, or of IPv4 without a gateway.
    """
    return ANYWHERE[family_of(via)] if text == "default" else with_prefix(text)


def hardware_address(text: str) -> str:
    """Return six octets in the form `02:00:00:00:00:01`. Raises NetworkError."""
    octets = text.lower().split(":")
    if len(octets) != _OCTETS or not all(len(octet) in (1, 2) and set(octet) <= _HEX for octet in octets):
        raise NetworkError(f"use {text!r}", "it is not a hardware address, like 02:00:00:00:00:01", EINVAL)
    return ":".join(octet.zfill(2) for octet in octets)


def check_family(address: str, network: str, what: str) -> None:
    """Raise NetworkError if `address`, the `what` of a route to `network`, is of the other family."""
    if family_of(address) != family_of(network):
        family = "IPv6" if family_of(network) == socket.AF_INET6 else "IPv4"
        raise NetworkError(f"use {what} {address} for {network}", f"it is not an {family} address", EINVAL)
