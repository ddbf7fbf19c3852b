#!/usr/bin/env python3
"""kill -9 of the accessory again and again under load: what changes, what is lost, how long it is away.

Prints one line of JSON.  `recovery_ms` is from the kill to the first answer to a client that connects then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.accessory_load import Load
from tests.bench.measure import median
from tests.daemon import command_name, descendants, start_time
from workers.accessory.client import Accessory

EXPIRY = "1s"  # so that few names are held but those that are leased


def inits(daemon: AccessoryDaemon) -> dict[int, int | None]:
    return {pid: start_time(pid) for pid in descendants(daemon.pid) if command_name(pid).startswith("init-")}


def kill(daemon: AccessoryDaemon, worker: int) -> float:
    """Kill it; milliseconds until somebody who connects then has an answer."""
    os.kill(worker, signal.SIGKILL)
    begun = time.perf_counter()
    while True:
        try:
            with Accessory(daemon.address) as client:
                client.request("kept-1", ipc=True).close()
        except (ConnectionResetError, BrokenPipeError):
            continue  # it was taken in by the one that was killed
        return (time.perf_counter() - begun) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--names", type=int, default=1000, help="that are leased all the time")
    parser.add_argument("--idle-kills", type=int, default=20, help="more of them, without clients")
    arguments = parser.parse_args()
    dice = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="spawnd-bench-") as folder, accessory_daemon(
        Path(folder), EXPIRY
    ) as daemon:
        load = Load(daemon.address, arguments.names, arguments.clients)
        load.lease_all()
        before = inits(daemon)
        worker = daemon.worker
        recovery: list[float] = []
        idle: list[float] = []
        load.start()
        try:
            for _ in range(arguments.kills):
                time.sleep(dice.uniform(0, 0.3))
                recovery.append(kill(daemon, worker))
                worker = daemon.wait_pid("accessory", other_than=worker)
        finally:
            load.stop_clients()
        for _ in range(arguments.idle_kills):
            time.sleep(0.2)
            idle.append(kill(daemon, worker))
            worker = daemon.wait_pid("accessory", other_than=worker)
        load.check_all()
        after = inits(daemon)
        load.stop()
        result = {
            "kills": len(recovery),
            "requests": load.requests,
            "retries": load.retries,
            "refused": load.refused,
            "failed": load.failed[:5],
            "changed": load.changed[:5],
            "inits_lost": sum(after.get(pid) != started for pid, started in before.items()),
            "recovery_ms": {"under load": round(median(recovery), 1), "worst": round(max(recovery), 1)},
            "recovery_idle_ms": {"median": round(median(idle), 1), "worst": round(max(idle), 1)} if idle else None,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
