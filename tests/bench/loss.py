#!/usr/bin/env python3
"""kill -9 of spawnd again and again while clients connect to its services.

Prints one line of JSON.  Control is back when the spawnd that is started anew answers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.listeners import Clients, definitions, free_ports, running, wait_running
from tests.bench.measure import descriptors, median, pss_kb
from tests.daemon import Daemon, children, wait_until


def measure(services: int, times: int, rate: float) -> dict[str, Any]:
    ports = free_ports(services)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with Daemon(Path(name), definitions(ports, name), "--log-level", "warning") as daemon:
            pids = wait_running(daemon, services, name)
            back, states = [], []
            with Clients(ports, rate) as clients:
                for _ in range(times):
                    lose(daemon)
                    begun = time.perf_counter()
                    daemon.start()
                    wait_until(daemon.answers, "an answer", 60, 0.002)
                    back.append((time.perf_counter() - begun) * 1000)
                    if running(name) != pids:
                        raise RuntimeError("a service was restarted, or runs twice")
                    states.append({"descriptors": descriptors(daemon.pid), "pss_kb": pss_kb(daemon.pid)})
                    time.sleep(0.5)  # for a start too many to show
            twice = len(running(name)) - services
            rows = daemon.services().values()
            return {
                "services": services,
                "losses": times,
                **clients.result(),
                "restarted": sum(row["restarts"] for row in rows) + (running(name) != pids),
                "run_twice": twice,
                "control_back_median_ms": round(median(back), 1),
                "control_back_max_ms": round(max(back), 1),
                "first": states[0],
                "last": states[-1],
            }


def lose(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.remember(children(daemon.pid))
    daemon.process.kill()
    daemon.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="clients a second")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.services, arguments.times, arguments.rate)))


if __name__ == "__main__":
    main()
