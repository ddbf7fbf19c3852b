"""Other supervisors with the same services, for a comparison in one run.

Their programs come from `PATH`. A script of the shell executes each service, as their manuals do it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.daemon import descendants, kill_process, start_time, wait_until

RUN = "#!/bin/sh\nexec /bin/sleep 100000\n"
COMMANDS = {"runit": ["runsvdir"], "s6": ["s6-svscan"]}


@contextmanager
def supervised(name: str, count: int) -> Iterator[tuple[float, subprocess.Popen[bytes]]]:
    """Start so many services below another supervisor; yields the time (`perf_counter`) and the supervisor."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for number in range(count):
            run = Path(folder, f"s{number:04d}", "run")
            run.parent.mkdir()
            run.write_text(RUN)
            run.chmod(0o755)
        command = [*COMMANDS[name], folder]
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield begun, process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the supervisor, those that it has started one for each service, and the services."""
    os.kill(process.pid, signal.SIGSTOP)  # so that it starts no more of them
    known: dict[int, int] = {}

    def is_over() -> bool:
        known.update((pid, started) for pid in descendants(process.pid) if (started := start_time(pid)) is not None)
        left = {pid: started for pid, started in known.items() if start_time(pid) == started}
        for pid, started in left.items():
            kill_process(pid, started)
        return not left

    wait_until(is_over, f"the end of the services of {process.args!r}")
    process.kill()
    process.wait()
