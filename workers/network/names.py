"""What people write for networks: `default`, an address without a prefix, either family."""

from __future__ import annotations

import socket

from workers.network.errors import NetworkError

ANYWHERE = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}
LONGEST = {socket.AF_INET: 32, socket.AF_INET6: 128}


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def plain_address(text: str) -> str:
    """An address as inet_ntop(3) writes it.  Raises NetworkError."""
    family = family_of(text)
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise NetworkError(f"use {text!r}", "it is not an address") from None


def with_prefix(text: str) -> str:
    """`ADDRESS/PREFIX`; an address alone is that of one host.  Raises NetworkError."""
    host, slash, prefix = text.partition("/")
    most = LONGEST[family_of(host)]
    if slash and not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and int(prefix) <= most):
        raise NetworkError(f"use {text!r}", f"the prefix goes from 0 to {most}")
    return f"{plain_address(host)}/{int(prefix) if slash else most}"


def destination(text: str, via: str) -> str:
    """A network with its prefix.  Raises NetworkError.

    `default` is every address of the gateway's family, and of IPv4 without a gateway.
    """
    return ANYWHERE[family_of(via)] if text == "default" else with_prefix(text)
