#!/usr/bin/env python3
"""A service that exits at once: what it costs until it is given up.

Prints one line of JSON.  `cpu_percent` is the CPU time of spawnd and of all that it forked
and reaped, over the time until the service is `failed`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.measure import TICKS, cpu_s
from tests.daemon import Daemon, wait_until


def cpu_with_children_s(pid: int) -> float:
    """Of the process and of its children that were waited for: proc_pid_stat(5), fields 16 and 17."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return cpu_s(pid) + (int(fields[13]) + int(fields[14])) / TICKS


def measure(definition: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        with Daemon(Path(folder), f'crash = {{ exec = "/bin/false"{definition} }}') as daemon:
            begun, used = time.monotonic(), cpu_with_children_s(daemon.pid)
            wait_until(lambda: "crash: failed" in daemon.log(), "failed", patience=300, pause=0.25)
            seconds = time.monotonic() - begun
            used = cpu_with_children_s(daemon.pid) - used
            row = daemon.services()["crash"]
            starts = row["restarts"] + 1
    return {
        "state": row["state"],
        "starts": starts,
        "seconds": round(seconds, 2),
        "cpu_s": round(used, 4),
        "cpu_percent": round(used / seconds * 100, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--definition", default="", metavar="KEYS", help="more keys for the service, in Lua")
    arguments = parser.parse_args()
    print(json.dumps(measure(f", {arguments.definition}" if arguments.definition else "")))


if __name__ == "__main__":
    main()
