#!/usr/bin/env python3
"""Many control connections, most of them idle or sending garbage: how long `spawnctl list` of the others takes.

Prints one line of JSON.  `list_ms` is a call over one of the connections that are there,
`spawnctl_ms` the command with its own start, `connections` what spawnd had in the middle of it,
`garbage_per_s` how often somebody had said enough to be answered and closed, and was back.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.bench.fleet import definitions
from tests.bench.measure import cpu_s, descriptors, median, pss_kb
from tests.daemon import Daemon, wait_until

LIST = b'{"method":"io.spawnd.List"}\0'
CHUNK = 1 << 16


class Garbage:
    """A client that sends what it has until it is thrown out, and comes back."""

    def __init__(self, path: str, source: random.Random) -> None:
        self._path = path
        self._kind = source.choice(GARBAGE)
        self._source = source
        self.sock = self._connect()
        self.returns = 0

    def _connect(self) -> socket.socket:
        self._data = memoryview(self._kind(self._source))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        sock.setblocking(False)
        return sock

    def act(self) -> bool:
        """Say something, hear what there is to hear; whether that was all it had to say on this connection."""
        with suppress(BlockingIOError):
            try:
                if self._data:
                    self._data = self._data[self.sock.send(self._data[:4096]) :]
                if self.sock.recv(CHUNK):
                    return False
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.sock.close()
            self.sock = self._connect()
            self.returns += 1
            return True
        return False


def noise(source: random.Random) -> bytes:
    return source.randbytes(source.randint(1, 2000)) + b"\0"


def endless(source: random.Random) -> bytes:
    return b"x" * (2 << 20)


def unknown(source: random.Random) -> bytes:
    return b'{"method":"io.spawnd.%d"}\0' % source.randint(0, 1000) * 50 + b"\0"


def half(source: random.Random) -> bytes:
    return b'{"method":"io.spawnd.List","parameters":{"names":["'


GARBAGE: tuple[Callable[[random.Random], bytes], ...] = (noise, endless, unknown, half)


@contextmanager
def hostile(path: str, idle: int, garbage: int, pause: float) -> Iterator[int]:
    """A process with so many connections; yields a descriptor on which it says how many garbage clients came back."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            be_hostile(path, idle, garbage, pause, writing)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        yield reading
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


def be_hostile(path: str, idle: int, garbage: int, pause: float, report: int) -> None:
    silent = []
    for _ in range(idle):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        silent.append(sock)
    clients = [Garbage(path, random.Random(number)) for number in range(garbage)]
    os.write(report, b"\n")
    reported = 0
    while True:
        begun = time.monotonic()
        for client in clients:
            client.act()
        back = sum(client.returns for client in clients)
        os.write(report, b"x" * min(back - reported, 4096))
        reported = back
        time.sleep(max(0.0, pause - (time.monotonic() - begun)))


class Others:
    """Well-behaved clients, each with a connection that stays."""

    def __init__(self, path: str, count: int) -> None:
        self.socks = []
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            sock.settimeout(60)
            self.socks.append(sock)

    def lists(self, seconds: float) -> list[float]:
        """Milliseconds of each call, one client after the other."""
        times: list[float] = []
        socks = cycle(self.socks)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sock = next(socks)
            begun = time.perf_counter()
            sock.sendall(LIST)
            self._reply(sock)
            times.append((time.perf_counter() - begun) * 1000)
        return times

    def at_once(self) -> float:
        """Milliseconds until all that call in the same moment have their answers."""
        begun = time.perf_counter()
        for sock in self.socks:
            sock.sendall(LIST)
        for sock in self.socks:
            self._reply(sock)
        return (time.perf_counter() - begun) * 1000

    @staticmethod
    def _reply(sock: socket.socket) -> None:
        data = bytearray()
        while not data.endswith(b"\0"):
            chunk = sock.recv(1 << 20)
            if not chunk:
                raise RuntimeError("a client that behaved was thrown out")
            data += chunk
        if b'"error"' in data:
            raise RuntimeError(data.decode())

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def commands(daemon: Daemon, count: int) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        daemon.ctl("list").check_returncode()
        times.append((time.perf_counter() - begun) * 1000)
    return times


def measure(services: int, idle: int, garbage: int, others: int, seconds: float, pause: float = 0.0) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        daemon = stack.enter_context(Daemon(folder, definitions(services), "--log-level", "warning"))
        wait_until(lambda: all(row["state"] == "running" for row in daemon.services().values()), "all up", 60)
        alone = commands(daemon, 10)
        fds, memory = descriptors(daemon.pid), pss_kb(daemon.pid)
        clients = Others(str(daemon.socket), others)
        with hostile(str(daemon.socket), idle, garbage, pause) as report:
            os.read(report, 1)
            begun, used = time.monotonic(), cpu_s(daemon.pid)
            calls = clients.lists(seconds / 2)
            connections = descriptors(daemon.pid) - fds
            listing = commands(daemon, 20)
            together = clients.at_once()
            lasted = time.monotonic() - begun
            used = cpu_s(daemon.pid) - used
            returns = 0
            while select.select([report], [], [], 0)[0]:
                returns += len(os.read(report, CHUNK))
        clients.close()
        # the last of those alone may have been counted before its end was noticed
        wait_until(lambda: descriptors(daemon.pid) <= fds, "no connections", 60)
        log = daemon.log()
        return {
            "services": services,
            "connections": connections,
            "list_ms": figures(calls),
            "spawnctl_ms": figures(listing),
            "spawnctl_alone_ms": figures(alone),
            "all_others_at_once_ms": round(together, 1),
            "garbage_per_s": round(returns / lasted),
            "cpu_percent": round(used / lasted * 100, 1),
            "pss_before_kb": memory,
            "pss_after_kb": pss_kb(daemon.pid),
            "log_lines": len(log.splitlines()),
        }


def figures(times: list[float]) -> dict[str, float]:
    return {"median": round(median(times), 1), "max": round(max(times), 1), "count": len(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--idle", type=int, default=450)
    parser.add_argument("--garbage", type=int, default=450)
    parser.add_argument("--others", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two sends of a garbage client")
    arguments = parser.parse_args()
    print(json.dumps(measure(**vars(arguments))))


if __name__ == "__main__":
    main()
