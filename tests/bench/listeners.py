"""Many services that answer on a port each, and clients that connect to them all the time."""

from __future__ import annotations

import errno
import os
import random
import socket
import time
from pathlib import Path
from threading import Thread
from types import TracebackType

from tests.daemon import Daemon, start_time, wait_until

# perl is on every Debian, and small
ANSWERS = 'open(L, "+<&=3") or die; while (1) { accept(C, L) or next; syswrite C, "$$"; close C }'
SERVICE = 's%03d = { exec = "/usr/bin/perl", arg = { "-e", [[%s]], "%s" }, fd = { tcp("127.0.0.1", %d) } }\n'
WORKERS = 4  # that take turns as clients


def definitions(ports: list[int], mark: str) -> str:
    """A service for each port; `mark` is an argument by which its processes are known."""
    return "".join(SERVICE % (number, ANSWERS, mark, port) for number, port in enumerate(ports))


def running(mark: str) -> list[int]:
    """The living processes with that argument."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0") if entry.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if mark.encode() in arguments and start_time(int(entry)) is not None:
            found.append(int(entry))
    return sorted(found)


def wait_running(daemon: Daemon, count: int, mark: str) -> list[int]:
    """The pids of all, once each is up."""
    wait_until(lambda: [row["state"] for row in daemon.services().values()] == ["running"] * count, "all up", 120, 0.2)
    wait_until(lambda: len(running(mark)) == count, "all programs", 120, 0.2)
    return running(mark)


class Clients:
    """Connect to one of the ports after the other, `rate` times a second, from `with` to its end.

    `refused` found nobody, `lost` were connected and got no answer, `total` are all.
    """

    def __init__(self, ports: list[int], rate: float) -> None:
        self.total = self.refused = self.lost = 0
        self.slowest_ms = 0.0
        self._ports = ports
        self._pause = WORKERS / rate
        self._ends = False
        self._threads = [Thread(target=self._run, args=(number,)) for number in range(WORKERS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ends = True
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        choice = random.Random(number)
        due = time.monotonic() + self._pause * number / WORKERS
        while not self._ends:
            time.sleep(max(0.0, due - time.monotonic()))
            due += self._pause
            self._one(choice.choice(self._ports))

    def _one(self, port: int) -> None:
        begun = time.perf_counter()
        self.total += 1
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                answered = bool(client.recv(100))
        except OSError as error:
            answered = False
            self.refused += error.errno == errno.ECONNREFUSED
        self.lost += not answered
        self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - begun) * 1000)

    def result(self) -> dict[str, float]:
        return {
            "clients": self.total,
            "refused": self.refused,
            "lost": self.lost - self.refused,
            "slowest_client_ms": round(self.slowest_ms, 1),
        }
