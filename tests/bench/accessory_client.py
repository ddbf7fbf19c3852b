"""A client of the accessory for benchmarks: it does as little as it can between two requests."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from workers.accessory.protocol import Response, packets

SPACE = socket.CMSG_SPACE(4 * 4)


class BenchClient:
    """One connection to `address`."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:]
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(self._address)
        return sock

    def request(self, datagram: bytes) -> int:
        """Ask, and close what comes but the last descriptor, which is the caller's."""
        return _ask(self._socket, datagram)

    def request_anew(self, datagram: bytes) -> int:
        """The same over a connection of its own."""
        with self._connect() as sock:
            return _ask(sock, datagram)

    def close(self) -> None:
        self._socket.close()


def _ask(sock: socket.socket, datagram: bytes) -> int:
    sock.send(datagram)
    reply, ancillary, _flags, _address = sock.recvmsg(1024, SPACE)
    if not ancillary:
        raise RuntimeError(f"no descriptors: {_error(reply)}")
    *others, last = struct.unpack(f"={len(ancillary[0][2]) // 4}i", ancillary[0][2])
    for fd in others:
        os.close(fd)
    return int(last)


def _error(reply: bytes) -> str:
    texts = [payload.decode() for response, payload in packets(reply) if response == Response.ERROR]
    return texts[0] if texts else repr(reply)


@dataclass(frozen=True)
class Rate:
    """Requests a second, and microseconds: of the quickest tenth and of half of them."""

    per_s: float
    p10_us: float
    p50_us: float


def measure(step: Callable[[int], object], seconds: float, most: int) -> Rate:
    """Do `step(0)`, `step(1)`, … for a while."""
    took: list[float] = []
    begun = before = time.perf_counter()
    while before - begun < seconds and len(took) < most:
        step(len(took))
        now = time.perf_counter()
        took.append(now - before)
        before = now
    ordered = sorted(took)
    tenth, half = ordered[len(ordered) // 10], ordered[len(ordered) // 2]
    return Rate(round(len(took) / (before - begun), 1), round(tenth * 1e6, 1), round(half * 1e6, 1))
