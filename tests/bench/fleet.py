#!/usr/bin/env python3
"""Many services of /bin/sleep: how fast they are up, what they cost, how fast one is back, how fast all are gone.

Prints one line of JSON.  Times are seconds unless the name says otherwise; `pss_kb` is that
of spawnd and of its workers, the services not included.  With `--against`, other supervisors do the same in the same
run, in turn with spawnd.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.measure import cpu_s, descriptors, median, pss_kb, wakeups
from tests.bench.others import COMMANDS, supervised
from tests.daemon import Daemon, children, command_name, descendants, stat_fields, wait_until

SERVICE = 's%04d = {{ exec = "/bin/sleep", arg = {{ "100000" }}{more} }}\n'


def definitions(count: int, more: str = "") -> str:
    line = SERVICE.format(more=more)
    return "".join(line % number for number in range(count))


def running(pid: int) -> list[int]:
    return [child for child in children(pid) if command_name(child) == "sleep"]


def measure(count: int, kills: int, settle: float, idle: float, more: str = "") -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), definitions(count, more), "--log-level", "warning")
        begun = time.perf_counter()
        daemon.start()
        try:
            wait_until(lambda: len(children(daemon.pid)) >= count and len(running(daemon.pid)) == count, "all up", 120)
            result: dict[str, Any] = {"services": count, "all_up_s": round(time.perf_counter() - begun, 3)}
            result["up_cpu_s"] = round(cpu_s(daemon.pid), 3)
            time.sleep(settle)  # what is measured next is a service that had been healthy
            fds = descriptors(daemon.pid)
            result |= respawn(running(daemon.pid)[:kills])
            time.sleep(settle)  # a second after a start it is written down once more
            # not before: for a moment after the exec, spawnd still has the socket on which the new process reports
            result["descriptors_leaked"] = descriptors(daemon.pid) - fds
            result |= at_rest(daemon, idle)
            result |= listing(daemon)
            begun = time.perf_counter()
            daemon.stop(60)
            result["stop_s"] = round(time.perf_counter() - begun, 3)
        finally:
            daemon.kill()
    return result


def respawn(victims: list[int]) -> dict[str, Any]:
    """Kill services one after the other, each by its pid, and wait until its parent has another process instead."""
    times = []
    for victim in victims:
        parent = int(stat_fields(victim)[1])
        before = set(children(parent))
        begun = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: _replaced(parent, before), "respawn", pause=0.0002)  # noqa: B023
        times.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.05)
    if not times:
        return {}
    return {"respawn_median_ms": round(median(times), 2), "respawn_max_ms": round(max(times), 2)}


def _replaced(parent: int, before: set[int]) -> bool:
    new = set(children(parent)) - before
    return any(command_name(child) == "sleep" for child in new)


def compare(names: list[str], count: int, kills: int, settle: float, rounds: int) -> dict[str, Any]:
    """Return the medians by supervisor; `all_up_s` of each round, in which spawnd comes first."""
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        found.setdefault("spawnd", []).append(measure(count, kills, settle, 0.1))
        for name in names:
            found.setdefault(name, []).append(measure_other(name, count, kills, settle))
    keys = ("all_up_s", "respawn_median_ms", "respawn_max_ms", "pss_kb")
    return {name: {key: median([one[key] for one in some]) for key in keys} for name, some in found.items()}


def measure_other(name: str, count: int, kills: int, settle: float) -> dict[str, float]:
    with supervised(name, count) as (begun, process):

        def services() -> list[int]:
            return [pid for pid in descendants(process.pid) if command_name(pid) == "sleep"]

        wait_until(lambda: len(services()) == count, "all up", 120)
        result: dict[str, float] = {"all_up_s": round(time.perf_counter() - begun, 3)}
        time.sleep(settle)
        result |= respawn(services()[:kills])
        others = {process.pid, *descendants(process.pid)} - {*services()}
        result["pss_kb"] = sum(map(pss_kb, others))
    return result


def at_rest(daemon: Daemon, seconds: float) -> dict[str, Any]:
    workers = [child for child in children(daemon.pid) if command_name(child) != "sleep"]
    woken, used = wakeups(daemon.pid), cpu_s(daemon.pid)
    time.sleep(seconds)
    return {
        "idle_wakeups_per_s": round((wakeups(daemon.pid) - woken) / seconds, 3),
        "idle_cpu_percent": round((cpu_s(daemon.pid) - used) / seconds * 100, 4),
        "pss_kb": sum(pss_kb(pid) for pid in (daemon.pid, *workers)),
        "processes": 1 + len(workers),
        "descriptors": descriptors(daemon.pid),
    }


def listing(daemon: Daemon) -> dict[str, Any]:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        result = daemon.ctl("list")
        times.append((time.perf_counter() - begun) * 1000)
        if result.returncode != 0:
            raise RuntimeError(f"spawnctl list: {result.stderr}")
    return {"list_median_ms": round(median(times), 1), "list_max_ms": round(max(times), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--settle", type=float, default=6.0, help="seconds of running before the kills")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds to watch an idle supervisor")
    parser.add_argument("--definition", default="", metavar="KEYS", help="more keys for each service, in Lua")
    parser.add_argument("--against", default="", metavar="NAMES", help=f"other supervisors: {','.join(COMMANDS)}")
    parser.add_argument("--rounds", type=int, default=3, help="of a comparison")
    arguments = parser.parse_args()
    if arguments.against:
        names = arguments.against.split(",")
        print(json.dumps(compare(names, arguments.services, arguments.kills, arguments.settle, arguments.rounds)))
        return
    more = f", {arguments.definition}" if arguments.definition else ""
    print(json.dumps(measure(arguments.services, arguments.kills, arguments.settle, arguments.idle, more)))


if __name__ == "__main__":
    main()
