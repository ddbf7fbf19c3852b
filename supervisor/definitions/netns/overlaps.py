"""Collisions of network namespaces with each other or with the host: names of links, addresses."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from supervisor.definitions.checking import Checking
from supervisor.definitions.netns import service_name
from supervisor.definitions.problems import place
from supervisor.definitions.service import Service
from supervisor.linux import netlink
from supervisor.linux.netlink import NetlinkSocket, attributes

IFA_ADDRESS, IFA_LOCAL = 1, 2
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, checking, index
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
Interface = IPv4Interface | IPv6Interface


def check_links(services: dict[str, Service], checkings: dict[str, Checking]) -> None:
    """Report every namespace whose link has the name of an earlier namespace's link."""
    links: dict[str, str] = {}
    for name, service in services.items():
        if not name.startswith(service_name("")) or "link" not in service.options:
            continue
        link = service.options["link"]
        other = links.setdefault(link, name)
        if other != name:
            there = place(checkings[other].file, checkings[other].line)
            checkings[name].problem(f"{link!r} is the link of {other} at {there} as well", "link")


def check_host_addresses(services: dict[str, Service], checkings: dict[str, Checking]) -> None:
    """Note every address that overlaps one of an earlier namespace, or one of the host."""
    spaces = {name: service for name, service in services.items() if name.startswith(service_name(""))}
    if not any(service.options.get(key) for service in spaces.values() for key in ("host_addresses", "addresses")):
        return
    links = {str(service.options.get("link")) for service in spaces.values()}
    own = [(address, name) for address, name in addresses_of_host() if name not in links]
    known: list[tuple[Interface, str]] = []
    for name, service in spaces.items():
        for index, written in enumerate(service.options.get("host_addresses", []), 1):
            address = ip_interface(written)
            _note_overlap(address, known, own, checkings, (name, index))
            known.append((address, name))
        for index, written in enumerate(service.options.get("addresses", []), 1):
            _note_same(ip_interface(written), own, checkings[name], index)


def _note_overlap(
    address: Interface,
    known: list[tuple[Interface, str]],
    own: list[tuple[Interface, str]],
    checkings: dict[str, Checking],
    where: tuple[str, int],
) -> None:
    """Note an overlap. An address with a full-length prefix may be on many links: it makes no route to a network."""
    name, index = where
    for other, namespace in known:
        if _overlap(address, other):
            there = place(checkings[namespace].file, checkings[namespace].line)
            text = f"{address} overlaps {other} of {namespace} at {there}: the host reaches one of the two alone"
            checkings[name].notice(text, "host_addresses", index)
            return
    for other, interface in own:
        if _overlap(address, other):
            text = f"{address} overlaps {other}, which the host has on {interface}: it reaches one of the two alone"
            checkings[name].notice(text, "host_addresses", index)
            return


def _note_same(address: Interface, own: list[tuple[Interface, str]], checking: Checking, index: int) -> None:
    for other, interface in own:
        if other.ip == address.ip:
            text = f"{address.ip} is an address of the host already, on {interface}: clients reach the host itself"
            checking.notice(text, "addresses", index)


def _overlap(one: Interface, other: Interface) -> bool:
    if one.version != other.version or other.network.prefixlen == other.max_prefixlen:
        return False
    return one.network.prefixlen < one.max_prefixlen and one.network.overlaps(other.network)


def addresses_of_host() -> Iterator[tuple[Interface, str]]:
    """Yield the addresses of this network namespace and their interfaces, except loopback and link-local addresses.

    Yields nothing if the kernel does not tell.
    """
    try:
        with closing(NetlinkSocket()) as kernel:
            messages = kernel.dump(netlink.RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0))
            names = dict(socket.if_nameindex())
    except OSError:
        return
    for message in messages:
        family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(message.body)
        found = attributes(message.body, _ADDRESS.size)
        packed = found.get(IFA_LOCAL, found.get(IFA_ADDRESS))
        if family not in _FAMILIES or packed is None:
            continue
        address = ip_address(packed)
        if not (address.is_loopback or address.is_link_local):
            yield ip_interface((packed, prefix)), names.get(index, str(index))
