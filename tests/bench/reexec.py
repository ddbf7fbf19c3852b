#!/usr/bin/env python3
"""spawnd executes itself anew again and again while clients connect to its services.

Prints one line of JSON.  Control is away from the last answer of the old program to the first
of the new one, as a client sees it that asks for a list again and again on one connection.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import time
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from tests.bench.listeners import Clients, definitions, running, wait_running
from tests.bench.measure import descriptors, median, pss_kb
from tests.daemon import Daemon, call, children, encode_call, process_state
from tests.ports import free_ports


class Probe:
    """A client that asks for a list again and again; `gaps` are the seconds between two answers, with their times."""

    def __init__(self, path: Path) -> None:
        self.gaps: list[tuple[float, float]] = []
        self.error = ""
        self._path = path
        self._ends = False
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ends = True
        self._thread.join()

    def _run(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(60)
                client.connect(str(self._path))
                last = time.perf_counter()
                while not self._ends:
                    client.sendall(encode_call("List"))
                    _receive(client)
                    now = time.perf_counter()
                    self.gaps.append((last, now - last))
                    last = now
        except (OSError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"

    def longest(self, since: float, until: float) -> float:
        return max(gap for at, gap in self.gaps if since <= at + gap and at <= until)


def _receive(client: socket.socket) -> None:
    while not (data := client.recv(1 << 20)).endswith(b"\0"):
        if not data:
            raise ValueError("closed")


def state(daemon: Daemon) -> dict[str, int]:
    return {
        "descriptors": descriptors(daemon.pid),
        "pss_kb": pss_kb(daemon.pid),
        "children": len(children(daemon.pid)),
        "zombies": sum(process_state(child) == "Z" for child in children(daemon.pid)),
    }


def measure(services: int, times: int, rate: float) -> dict[str, Any]:
    ports = free_ports(services)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with Daemon(Path(name), definitions(ports, name), "--log-level", "warning") as daemon:
            pids = wait_running(daemon, services, name)
            away, took, states = [], [], []
            with Clients(ports, rate) as clients, Probe(daemon.socket) as probe:
                for _ in range(times):
                    begun = time.perf_counter()
                    reply = call(daemon.socket, "Reexec")
                    ended = time.perf_counter()
                    if reply.get("parameters", {}).get("pid") != daemon.pid:
                        raise RuntimeError(f"not executed: {reply}")
                    time.sleep(0.1)  # the probe's next answer
                    took.append(ended - begun)
                    away.append(probe.longest(begun, ended) * 1000)
                    states.append(state(daemon))
            same = running(name) == pids
            restarts = sum(row["restarts"] for row in daemon.services().values())
            return {
                "services": services,
                "execs": times,
                **clients.result(),
                "restarted": restarts + (not same),
                "control_away_median_ms": round(median(away), 1),
                "control_away_max_ms": round(max(away), 1),
                "probe_error": probe.error,
                "with_trial_median_s": round(median(took), 2),
                "first": states[0],
                "last": states[-1],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--rate", type=float, default=100.0, help="clients a second")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.services, arguments.times, arguments.rate)))


if __name__ == "__main__":
    main()
