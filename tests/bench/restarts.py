#!/usr/bin/env python3
"""A service restarted many times, half of them by kill -9.

Prints one line of JSON: descriptors, zombies and memory of spawnd, and the descriptors that
the service sees, before and after.
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

from tests.bench.measure import descriptors, pss_kb
from tests.daemon import Daemon, children, command_name, wait_until

PROGRAM = r"""#!/bin/sh
ls -l /proc/self/fd > "$1.new"
mv "$1.new" "$1"
exec sleep 100000
"""


def definitions(folder: Path) -> str:
    return f"""
    crash = {{
      exec = "{folder}/program", arg = {{ "{folder}/seen/fds" }}, env = {{ PATH = "/usr/bin:/bin" }},
      fd = {{ udp("127.0.0.1", 0), file("{folder}/program") }},
      healthy_after = 0, start_limit = false,
    }}
    """


def measure(restarts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "seen").mkdir()
        (folder / "seen").chmod(0o777)
        program = folder / "program"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        with Daemon(folder, definitions(folder), "--log-level", "warning") as daemon:
            first = settle(daemon, folder)
            begun = time.monotonic()
            for number in range(restarts):
                if number % 2:
                    kill(daemon)
                else:
                    daemon.ctl("restart", "crash").check_returncode()
            seconds = time.monotonic() - begun
            last = settle(daemon, folder)
    return {"restarts": restarts, "seconds": round(seconds, 2), "first": first, "last": last}


def kill(daemon: Daemon) -> None:
    """kill -9, and wait for the next process."""
    pid = daemon.wait_pid("crash")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: children(daemon.pid) not in ([], [pid]), "the next process")


def settle(daemon: Daemon, folder: Path) -> dict[str, Any]:
    """All there is once the latest process has looked around."""
    wait_until(lambda: [command_name(pid) for pid in children(daemon.pid)] == ["sleep"], "the sleep of the service")
    daemon.wait_state("crash", "running")
    rows = (folder / "seen" / "fds").read_text().splitlines()[1:]
    names = sorted(int(row.split(" -> ")[0].split()[-1]) for row in rows)
    zombies = [pid for pid in children(daemon.pid) if " Z " in Path(f"/proc/{pid}/stat").read_text()]
    return {
        "descriptors": descriptors(daemon.pid),
        "zombies": len(zombies),
        "children": len(children(daemon.pid)),
        "pss_kb": pss_kb(daemon.pid),
        # `ls` itself has one more: the folder that it reads
        "service_sees": names,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--restarts", type=int, default=1000)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.restarts)))


if __name__ == "__main__":
    main()
