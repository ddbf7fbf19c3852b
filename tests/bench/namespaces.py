#!/usr/bin/env python3
"""Network namespaces: many at once, a stream through one whose worker is killed, links that are deleted, many cycles.

    python -m tests.bench.namespaces fleet [--count 200]
    python -m tests.bench.namespaces stream [--kills 20]
    python -m tests.bench.namespaces repair [--rounds 10]
    python -m tests.bench.namespaces cycles [--count 1000]

Each prints one line of JSON; times are seconds unless the name says otherwise.  Needs root.  The
namespaces have names of their own, which begin with `nb` and the pid, and are removed in any case.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor.definitions.netns.namespace import HEALTHY_AFTER
from tests.bench.measure import cpu_s, descriptors, median, rss_kb, wakeups
from tests.bench.stream import Stream
from tests.daemon import Daemon, wait_until
from tests.namespaces import count_links, count_mounts, fields, names, run, swept

PATIENCE = 180.0


def fresh_prefix() -> str:
    return f"nb{os.getpid() % 100000}"


def definition(name: str, number: int = 0) -> str:
    """A namespace with a /30 of its own."""
    high, low = divmod(number, 64)
    outside, inside = (f"10.200.{high}.{low * 4 + end}" for end in (1, 2))
    return (
        f'netns["{name}"] = {{ addresses = {{ "{inside}/30" }}, host_addresses = {{ "{outside}/30" }}, '
        f'gateway = "{outside}", setup = false }}\n'
    )


def private_kb(pid: int) -> int:
    """Return the private memory of the process, clean or not."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def running(daemon: Daemon) -> dict[str, int]:
    """The pids of the workers that are ready, by service."""
    rows = daemon.services()
    return {name: row["pid"] for name, row in rows.items() if name.startswith("netns@") and row["state"] == "running"}


def fleet(count: int, idle: float) -> dict[str, Any]:
    prefix = fresh_prefix()
    text = "".join(definition(f"{prefix}-{number}", number) for number in range(count))
    with tempfile.TemporaryDirectory() as folder, swept(prefix):
        daemon = Daemon(Path(folder), text, "--log-level", "warning")
        begun = time.perf_counter()
        with daemon:
            wait_until(lambda: len(running(daemon)) == count, "all ready", PATIENCE, 0.2)
            result: dict[str, Any] = {"namespaces": count, "all_ready_s": round(time.perf_counter() - begun, 2)}
            pids = list(running(daemon).values())
            time.sleep(5)  # the last look after the last event
            result |= at_rest(pids, idle)
            result |= takeover(daemon, pids)
            begun = time.perf_counter()
            daemon.stop(PATIENCE)
            result["stopped_s"] = round(time.perf_counter() - begun, 2)
            wait_until(lambda: not names(prefix) and not count_links(prefix), "all gone", PATIENCE)
            result["gone_s"] = round(time.perf_counter() - begun, 2)
            troubles = [line for line in daemon.log().splitlines() if " err " in line or " failure " in line]
            result["troubles"] = len(troubles)
            result["first_trouble"] = troubles[0] if troubles else ""
        left = {"names": len(names(prefix)), "links": count_links(prefix), "mounts": count_mounts(prefix)}
        return result | {"left": left}


def at_rest(pids: list[int], seconds: float) -> dict[str, Any]:
    memory = [private_kb(pid) for pid in pids]
    used, woken = sum(map(cpu_s, pids)), sum(map(wakeups, pids))
    time.sleep(seconds)
    return {
        "private_max_kb": max(memory),
        "private_median_kb": median([float(kb) for kb in memory]),
        "idle_cpu_s": round(sum(map(cpu_s, pids)) - used, 4),
        "idle_wakeups": sum(map(wakeups, pids)) - woken,
    }


def takeover(daemon: Daemon, pids: list[int]) -> dict[str, Any]:
    """Kill all workers at once and wait until all have successors that are ready."""
    begun = time.perf_counter()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    old = set(pids)
    wait_until(lambda: len(set(running(daemon).values()) - old) == len(pids), "all taken over", PATIENCE, 0.2)
    return {"all_taken_over_s": round(time.perf_counter() - begun, 2)}


def stream(kills: int) -> dict[str, Any]:
    prefix = fresh_prefix()
    with tempfile.TemporaryDirectory() as folder, swept(prefix), Daemon(Path(folder), definition(prefix)) as daemon:
        service = f"netns@{prefix}"
        pid = daemon.wait_running(service)
        packets = Stream(prefix, "10.200.0.2")
        with packets:
            for _ in range(kills):
                # one that dies sooner is taken for one that cannot live, and the next one comes later each time
                wait_until(lambda: daemon.services()[service]["uptime_s"] > HEALTHY_AFTER, "a healthy worker")
                before = packets.received
                os.kill(pid, signal.SIGKILL)
                pid = daemon.wait_running(service, pid)
                wait_until(lambda: packets.received > before + (1 << 20), "the stream to go on")  # noqa: B023
        return {
            "kills": kills,
            "bytes": packets.received,
            "lost": packets.sent - packets.received,
            "intact": packets.intact,
            "longest_pause_ms": round(packets.longest_pause * 1000, 1),
            "connections": packets.connections,
        }


def repair(rounds: int) -> dict[str, Any]:
    prefix = fresh_prefix()
    times = []
    with tempfile.TemporaryDirectory() as folder, swept(prefix), Daemon(Path(folder), definition(prefix)) as daemon:
        daemon.wait_running(f"netns@{prefix}")
        for _ in range(rounds):
            run("ip", "link", "del", prefix)
            begun = time.perf_counter()
            wait_until(lambda: is_set_up(prefix), "the link")
            times.append(time.perf_counter() - begun)
            time.sleep(0.5)
    return {"rounds": rounds, "back_median_ms": round(median(times) * 1000), "back_max_ms": round(max(times) * 1000)}


def is_set_up(prefix: str) -> bool:
    """Whether both ends have their addresses and the route is there."""
    host = run("ip", "-br", "addr", "show", "dev", prefix, check=False)
    route = run("ip", "-n", prefix, "route", "show", "default", check=False)
    return "10.200.0.1/30" in host and "10.200.0.1" in route


def cycles(count: int) -> dict[str, Any]:
    prefix = fresh_prefix()
    with tempfile.TemporaryDirectory() as folder, swept(prefix):
        with Daemon(Path(folder), definition(prefix), "--log-level", "warning") as daemon:
            service = f"netns@{prefix}"
            daemon.wait_running(service)
            cycle(daemon, service, 20)
            before = standing(daemon, prefix)
            begun = time.perf_counter()
            cycle(daemon, service, count)
            took = time.perf_counter() - begun
            after = standing(daemon, prefix)
        grown = {key: after[key] - before[key] for key in before}
        return {"cycles": count, "cycle_ms": round(took / count * 1000, 1), "grown": grown}


def cycle(daemon: Daemon, service: str, count: int) -> None:
    from tests.daemon import call

    for _ in range(count):
        for method in ("Stop", "Start"):
            reply = call(daemon.socket, method, names=[service])
            assert "error" not in reply, reply


def standing(daemon: Daemon, prefix: str) -> dict[str, int]:
    time.sleep(1)  # until what the last start has stored has come
    slab = fields("/proc/meminfo")
    return {
        "descriptors": descriptors(daemon.pid),
        "mounts": count_mounts(prefix),
        "links": count_links(prefix),
        "names": len(names(prefix)),
        "spawnd_kb": rss_kb(daemon.pid),  # not what is its own: it comes to share less with the fork server
        "kernel_kb": slab["SUnreclaim"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    verbs = parser.add_subparsers(dest="verb", required=True)
    many = verbs.add_parser("fleet")
    many.add_argument("--count", type=int, default=200)
    many.add_argument("--idle", type=float, default=20.0, help="seconds to watch idle workers")
    verbs.add_parser("stream").add_argument("--kills", type=int, default=20)
    verbs.add_parser("repair").add_argument("--rounds", type=int, default=10)
    verbs.add_parser("cycles").add_argument("--count", type=int, default=1000)
    values = vars(parser.parse_args())
    verbs_by_name: dict[str, Callable[..., dict[str, Any]]] = {
        "fleet": fleet,
        "stream": stream,
        "repair": repair,
        "cycles": cycles,
    }
    print(json.dumps(verbs_by_name[values.pop("verb")](**values)))


if __name__ == "__main__":
    main()
