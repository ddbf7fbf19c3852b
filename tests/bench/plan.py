#!/usr/bin/env python3
"""A plan for many services that run, of which the files change a few: `spawnctl plan` from its start to its end.

Prints one line of JSON.  `other_call_median_ms` and `other_call_max_ms` are how long the calls of another
client took meanwhile, and `apply_s` what it took to carry the last plan out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from supervisor.ctl.client import Client
from tests.bench.measure import descriptors, median, pss_kb
from tests.daemon import Daemon, wait_until

SERVICE = """s{number:04} = {{
  description = "service number {number}", exec = "/bin/sleep", arg = {{ "100000" }},
  user = "daemon", group = "daemon", cwd = "/tmp", umask = "----w--w-",
  env = {{ LANG = "C", HOME = "/tmp", NUMBER = "{number}", KIND = "{kind}" }}, limits = {{ nofile = 64, core = 0 }},
  stop_timeout = "{timeout}s", after = {{ {after} }},
}}
"""


def definitions(count: int, changes: int = 0) -> str:
    """`count` services; of the first `changes` every second asks for a restart, the others for none."""
    return "".join(service(number, number < changes) for number in range(count))


def service(number: int, is_changed: bool) -> str:
    after = f'"s{number // 2:04}"' if number else ""
    kind = "changed" if is_changed and number % 2 else "same"
    return SERVICE.format(number=number, kind=kind, timeout=9 if is_changed else 5, after=after)


def measure(count: int, changes: int, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Daemon(folder, definitions(count), "--log-level", "warning") as daemon:
            client = Client(str(daemon.socket))
            wait_until(lambda: count_running(client) == count, "all up", patience=120, pause=0.2)
            before = pss_kb(daemon.pid), descriptors(daemon.pid)
            daemon.definitions.write_text(definitions(count, changes))
            result: dict[str, Any] = {"services": count, "changes": changes}
            result |= plans(daemon, changes, runs)
            begun = time.perf_counter()
            applied = daemon.ctl("apply", "--quiet")
            if applied.returncode != 0:
                raise RuntimeError(f"spawnctl apply: {applied.stderr}")
            result["apply_s"] = round(time.perf_counter() - begun, 3)
            result["pss_kb_more"] = pss_kb(daemon.pid) - before[0]
            with suppress(TimeoutError):  # spawnd may not have read the end of a connection yet
                wait_until(lambda: descriptors(daemon.pid) <= before[1], "no more descriptors", patience=10)
            result["descriptors_more"] = descriptors(daemon.pid) - before[1]
            client.close()
    return result


def count_running(client: Client) -> int:
    return sum(row["state"] == "running" for row in client.call("List")["services"])


def plans(daemon: Daemon, changes: int, runs: int) -> dict[str, Any]:
    times = []
    ended = Event()
    latencies: list[float] = []
    other = Thread(target=call_again_and_again, args=(str(daemon.socket), ended, latencies))
    other.start()
    try:
        for _ in range(runs):
            begun = time.perf_counter()
            result = daemon.ctl("plan", "--json")
            times.append(time.perf_counter() - begun)
            found = len(json.loads(result.stdout)["services"])
            if found != changes:
                raise RuntimeError(f"{found} services in the plan: {result.stdout} {result.stderr}")
    finally:
        ended.set()
        other.join()
    return {
        "plan_median_s": round(median(times), 3),
        "plan_max_s": round(max(times), 3),
        "other_call_median_ms": round(median(latencies), 1),
        "other_call_max_ms": round(max(latencies), 1),
    }


def call_again_and_again(path: str, ended: Event, latencies: list[float]) -> None:
    client = Client(path)
    while not ended.wait(0.005):
        begun = time.perf_counter()
        client.call("GetVersion")
        latencies.append((time.perf_counter() - begun) * 1000)
    client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.services, arguments.changes, arguments.runs)))


if __name__ == "__main__":
    main()
