"""Networks as people write them: `default`, an address without a prefix, either family."""

from __future__ import annotations

import socket
from errno import EINVAL

from workers.network.view import NetworkError

ANYWHERE = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}
_OCTETS = 6  # of a hardware address of Ethernet
_HEX = frozenset("0123456789abcdef")
LONGEST = {socket.AF_INET: 32, socket.AF_INET6: 128}


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def plain_address(text: str) -> str:
    """Write an address as inet_ntop(3) does.  Raises NetworkError."""
    family = family_of(text)
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise NetworkError(f"use {text!r}", "it is not an address", EINVAL) from None


def with_prefix(text: str) -> str:
    """Return `ADDRESS/PREFIX`; an address alone is that of one host.  Raises NetworkError."""
    host, slash, prefix = text.partition("/")
    most = LONGEST[family_of(host)]
    if slash and not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and int(prefix) <= most):
        raise NetworkError(f"use {text!r}", f"the prefix goes from 0 to {most}", EINVAL)
    return f"{plain_address(host)}/{int(prefix) if slash else most}"


def destination(text: str, via: str) -> str:
    """Return a network with its prefix.  Raises NetworkError.

    `default` is every address of the gateway's family, and of IPv4 without a gateway.
    """
    return ANYWHERE[family_of(via)] if text == "default" else with_prefix(text)


def hardware_address(text: str) -> str:
    """Write six octets as `02:00:00:00:00:01`.  Raises NetworkError."""
    octets = text.lower().split(":")
    if len(octets) != _OCTETS or not all(len(octet) in (1, 2) and set(octet) <= _HEX for octet in octets):
        raise NetworkError(f"use {text!r}", "it is not a hardware address, like 02:00:00:00:00:01", EINVAL)
    return ":".join(octet.zfill(2) for octet in octets)


def check_family(address: str, network: str, what: str) -> None:
    """Raise NetworkError where `address`, which is `what` of a route to `network`, is of the other family."""
    if family_of(address) != family_of(network):
        family = "IPv6" if family_of(network) == socket.AF_INET6 else "IPv4"
        raise NetworkError(f"use {what} {address} for {network}", f"it is no {family} address", EINVAL)
