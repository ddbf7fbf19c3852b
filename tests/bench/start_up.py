#!/usr/bin/env python3
"""A start of many services that are started rather than run: modules whose `start` does nothing, tasks, a chain.

Prints one line of JSON.  The time goes from the start of spawnd until the last service is up, by the times that
spawnd tells; `all_cpu_s` is what spawnd and all its processes used from its start to its end.  `files`: each
service has a file of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from supervisor.ctl.client import Client
from tests.bench.measure import cpu_s
from tests.daemon import Daemon, wait_until

MODULE = 'module("{name}", package.seeall)\ndepends(_M{depends})\nfunction start() end\nfunction stop() end\n'
TASK = '_G["{name}"] = {{ exec = "/bin/true", task = true, depends = {{ {depends} }} }}\n'
UP = ("running", "done")


def name_of(level: int, number: int) -> str:
    return f"s{level:03}-{number:03}"


def services(levels: int, width: int, as_task: bool) -> list[str]:
    """Each needs two of the level before."""
    found = []
    for level in range(levels):
        for number in range(width):
            others = dict.fromkeys((number, (number + 1) % width)) if level else ()
            names = [f'"{name_of(level - 1, other)}"' for other in others]
            if as_task:
                found.append(TASK.format(name=name_of(level, number), depends=", ".join(names)))
            else:
                depends = "".join(f", {name}" for name in names)
                found.append(MODULE.format(name=name_of(level, number), depends=depends))
    return found


def measure(levels: int, width: int, as_task: bool = False, files: bool = False) -> dict[str, Any]:
    texts = services(levels, width, as_task)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        daemon = Daemon(folder, "" if files else "".join(texts), "--log-level", "warning")
        if files:
            daemon.definitions.unlink()
            daemon.definitions.mkdir()
            for number, text in enumerate(texts):
                (daemon.definitions / f"{number:04}.lua").write_text(text)
        begun, before = time.time(), children_cpu_s()
        with daemon:
            client = Client(str(daemon.socket))
            rows = wait_until(lambda: all_up(client), "all up", patience=120, pause=0.3)
            result: dict[str, Any] = {"services": len(texts), "levels": levels, "tasks": as_task, "files": files}
            result["all_up_s"] = round(max(datetime.fromisoformat(row["since"]).timestamp() for row in rows) - begun, 3)
            result["spawnd_cpu_s"] = round(cpu_s(daemon.pid), 3)
            client.close()
            begun = time.perf_counter()
        result["stop_s"] = round(time.perf_counter() - begun, 3)
        result["all_cpu_s"] = round(children_cpu_s() - before, 3)
    return result


def children_cpu_s() -> float:
    """Return the CPU time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def all_up(client: Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.call("List")["services"]
    return rows if rows and all(row["state"] in UP for row in rows) else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--levels", type=int, default=10)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--tasks", action="store_true", help="tables with /bin/true instead of modules")
    parser.add_argument("--files", action="store_true", help="each in a file of its own")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.levels, arguments.width, arguments.tasks, arguments.files)))


if __name__ == "__main__":
    main()
