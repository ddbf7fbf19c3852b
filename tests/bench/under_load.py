#!/usr/bin/env python3
"""kill -9 of qotd again and again while clients connect: how many are refused, how many get no answer.

Prints one line of JSON.  A reply is lost where a client that was connected got none; one
such client for each kill is in flight and cannot be helped.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import Any

from tests.daemon import Daemon

EXAMPLES = Path(__file__).parents[2] / "conf" / "examples"


def definitions(port: int, folder: Path) -> str:
    return f"""
    qotd = {{
      exec = "{folder}/qotd",
      fd = {{
        udp("127.0.0.1", {port}), tcp("127.0.0.1", {port}),
        file("{folder}/quotes.txt", "r"), file("{folder}/quotes.index", "r"),
      }},
      healthy_after = "200ms",
    }}
    """


class Clients:
    """One client after the other, `rate` a second, each in a thread of its own."""

    def __init__(self, port: int, rate: float, seconds: float) -> None:
        self.refused = self.lost = self.answered = 0
        self.slowest_ms = 0.0
        self._port = port
        self._rate = rate
        self._seconds = seconds

    def run(self) -> None:
        begun = time.monotonic()
        threads = []
        for number in range(int(self._rate * self._seconds)):
            time.sleep(max(0.0, begun + number / self._rate - time.monotonic()))
            thread = Thread(target=self._one)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _one(self) -> None:
        begun = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=10) as client:
                answer = b""
                while data := client.recv(4096):
                    answer += data
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                self.refused += 1
            else:
                self.lost += 1
            return
        if answer:
            self.answered += 1
            self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - begun) * 1000)
        else:
            self.lost += 1


def measure(port: int, seconds: float, every: float, rate: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("qotd", "quotes.txt", "quotes.index"):
            (folder / file).write_bytes((EXAMPLES / file).read_bytes())
            (folder / file).chmod((EXAMPLES / file).stat().st_mode)
        with Daemon(folder, definitions(port, folder)) as daemon:
            daemon.wait_state("qotd", "running")
            clients = Clients(port, rate, seconds)
            thread = Thread(target=clients.run)
            thread.start()
            kills = 0
            while thread.is_alive():
                time.sleep(every)
                if thread.is_alive():
                    os.kill(daemon.wait_pid("qotd"), signal.SIGKILL)
                    kills += 1
            thread.join()
    return {
        "kills": kills,
        "clients": clients.answered + clients.lost + clients.refused,
        "answered": clients.answered,
        "refused": clients.refused,
        "lost": clients.lost,
        "slowest_ms": round(clients.slowest_ms, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=17171)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=1.5, help="seconds between kills")
    parser.add_argument("--rate", type=float, default=50.0, help="clients a second")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.port, arguments.seconds, arguments.every, arguments.rate)))


if __name__ == "__main__":
    main()
