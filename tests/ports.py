"""Ports of the loopback interface for the services of tests."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 10_000  # tests do not take the ports of known services
HIGHEST = 65_535


def free_port() -> int:
    """Return a port that is free for TCP and UDP, and that most likely still is in a moment."""
    return next(_free_ports())


def free_ports(count: int) -> list[int]:
    """Return different ports of that kind."""
    ports = _free_ports()
    return [next(ports) for _ in range(count)]


def _free_ports() -> Iterator[int]:
    """Yield ports from a random one on, as several runs of tests look for ports at the same time.

    The kernel gives none of them to clients. A client may get any other port between this look and the bind of a
    service, and with thousands of clients one of them does.
    """
    low, high = map(int, CLIENTS.read_text().split())
    ports = [port for port in range(LOWEST, HIGHEST + 1) if not low <= port <= high] or range(LOWEST, HIGHEST + 1)
    start = random.SystemRandom().randrange(len(ports))
    yield from filter(_is_free, (*ports[start:], *ports[:start]))


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
