#!/usr/bin/env python3
"""Requests a second that the accessory answers, client and worker on one CPU.

With `--floor PROGRAM` that program is measured in the same run, a phase of the one after the same
phase of the other: it is executed with an address as its argument and has to answer there.  `share` is ours
divided by its rate, `share_p50` the same of the median times: the median of all rounds.
With `--fifo` all of them, and spawnd, go before what else is done on the machine: sched(7).  Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.accessory import accessory_daemon
from tests.bench.accessory_client import BenchClient, Rate, measure
from tests.bench.measure import median
from tests.daemon import children, wait_until
from workers.accessory.client import encode_request

MAPS = b"0 0 1\x000 0 1"
MOST = {"pid": 400, "ipc": 2000, "user": 2000}
PHASES = ("cached", "connect", "pid", "ipc", "user")
CPU = 0


def phase(name: str, client: BenchClient, tag: str) -> Callable[[int], None]:
    """One request of that phase; new names begin with `tag`."""
    cached = encode_request("cached", ipc=True)
    if name == "cached":
        return lambda _n: os.close(client.request(cached))
    if name == "connect":
        return lambda _n: os.close(client.request_anew(cached))
    user = MAPS if name == "user" else None
    return lambda n: os.close(
        client.request(encode_request(f"{tag}-{name}-{n}", ipc=name == "ipc", pid=name == "pid", user=user))
    )


def run(name: str, address: str, seconds: float, tag: str) -> Rate:
    client = BenchClient(address)
    try:
        os.close(client.request(encode_request("cached", ipc=True)))
        return measure(phase(name, client, tag), seconds, MOST.get(name, 1 << 30))
    finally:
        client.close()


class Floor:
    """The program to compare with, on a new address each time, as it may keep all that it has made."""

    def __init__(self, program: str, fifo: bool) -> None:
        self._program = program
        self._fifo = fifo
        self._number = 0

    def run(self, name: str, seconds: float) -> Rate:
        self._number += 1
        address = f"@floor-{os.getpid()}-{self._number}"
        with subprocess.Popen([self._program, address], stdout=subprocess.DEVNULL) as process:
            try:
                settle(process.pid, self._fifo)
                wait_until(lambda: answers(address), "the floor")
                return run(name, address, seconds, "f")
            finally:
                for child in children(process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, 9)
                process.kill()


def settle(pid: int, fifo: bool) -> None:
    """Have a process (0: this one) on the one CPU."""
    os.sched_setaffinity(pid, {CPU})
    if fifo:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def answers(address: str) -> bool:
    try:
        BenchClient(address).close()
    except OSError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--floor", metavar="PROGRAM")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--fifo", action="store_true")
    arguments = parser.parse_args()
    floor = Floor(arguments.floor, arguments.fifo) if arguments.floor else None
    rates: dict[str, list[Rate]] = {}
    floors: dict[str, list[Rate]] = {}
    with tempfile.TemporaryDirectory(prefix="spawnd-bench-") as folder, accessory_daemon(Path(folder)) as daemon:
        settle(daemon.worker, arguments.fifo)
        settle(0, arguments.fifo)
        if arguments.fifo:
            os.sched_setscheduler(daemon.pid, os.SCHED_FIFO, os.sched_param(1))
        for number in range(arguments.rounds):
            for name in arguments.phases.split(","):
                if floor is not None:
                    floors.setdefault(name, []).append(floor.run(name, arguments.seconds))
                rates.setdefault(name, []).append(run(name, daemon.address, arguments.seconds, f"{number}"))
                time.sleep(0.2)
    print(json.dumps({name: summary(found, floors.get(name, [])) for name, found in rates.items()}))


def summary(found: list[Rate], floors: list[Rate]) -> dict[str, float]:
    result = {
        "per_s": median([rate.per_s for rate in found]),
        "p10_us": median([rate.p10_us for rate in found]),
        "p50_us": median([rate.p50_us for rate in found]),
    }
    if floors:
        pairs = list(zip(found, floors, strict=True))
        result["floor_per_s"] = median([rate.per_s for rate in floors])
        result["share"] = round(median([ours.per_s / least.per_s for ours, least in pairs]), 3)
        result["share_p50"] = round(median([least.p50_us / ours.p50_us for ours, least in pairs]), 3)
        result["share_p10"] = round(median([least.p10_us / ours.p10_us for ours, least in pairs]), 3)
    return result


if __name__ == "__main__":
    main()
