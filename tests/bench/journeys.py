#!/usr/bin/env python3
"""Files of `supervisor/` and `workers/` that a journey enters: a stop, a restart, a new IPC namespace.

spawnd runs with a profile hook that notes each call of ours with its time and process.  Prints one line of JSON: the
number of files and of calls for each journey, with `--files` also which they are.  `stop` is `spawnctl stop`,
`restart` is the way from the death of a process to the next one, `ipc` is a new name in the accessory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.accessory import AccessoryDaemon
from tests.bench.accessory_client import BenchClient
from tests.daemon import BIN, Daemon
from workers.accessory.client import encode_request

QUIET = 0.5  # seconds without a call after which a journey is over
WEB = """
web = { exec = "/bin/sleep", arg = { "1000" }, healthy_after = 0 }
"""
SPAWND = """#!%(python)s -IXutf8
import os, sys, time
import supervisor

HOME = os.path.dirname(os.path.dirname(os.path.abspath(supervisor.__file__)))  # what is installed
OURS = (f"{HOME}/supervisor/", f"{HOME}/workers/")

def note(frame, event, argument, ours=OURS, start=len(HOME) + 1, path=%(path)r):
    if event == "call" and frame.f_code.co_filename.startswith(ours):
        line = f"{time.monotonic_ns()} {os.getpid()} {frame.f_code.co_filename[start:]}\\n".encode()
        try:  # by its path, as children close what they inherit
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            os.write(fd, line)
            os.close(fd)
        except OSError:
            pass

sys.setprofile(note)
from supervisor.main import main
sys.argv[0] = %(program)r
sys.exit(main())
"""


class Trace:
    """Calls of spawnd and its children, from `begin` until none has come for a while."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "calls"
        self._path.touch()
        self._path.chmod(0o666)

    def program(self, folder: Path) -> str:
        """A spawnd that notes its calls."""
        path = folder / "spawnd"
        names = {"python": sys.executable, "path": str(self._path), "program": str(BIN / "spawnd")}
        path.write_text(SPAWND % names)
        path.chmod(0o755)
        return str(path)

    def calls(self, pid: int, journey: Callable[[], object]) -> list[str]:
        """The file of each call of a process in a journey."""
        self._wait_quiet()
        begun = time.monotonic_ns()
        journey()
        self._wait_quiet()
        rows = [line.split(" ", 2) for line in self._path.read_text().splitlines()]
        return [path for at, caller, path in rows if int(at) >= begun and int(caller) == pid]

    def _wait_quiet(self) -> None:
        before = -1
        while (size := self._path.stat().st_size) != before:
            before = size
            time.sleep(QUIET)


def summary(calls: list[str], files: bool) -> dict[str, Any]:
    found = sorted(set(calls))
    return {"files": len(found), "calls": len(calls)} | ({"entered": found} if files else {})


def measure(files: bool = False) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="spawnd-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        found = _of_spawnd(folder)
        if os.geteuid() == 0:
            found["ipc"] = _of_the_accessory(folder)
    return {journey: summary(calls, files) for journey, calls in found.items()}


def _of_spawnd(folder: Path) -> dict[str, list[str]]:
    trace = Trace(folder)
    daemon = Daemon(folder, WEB)
    daemon.program = trace.program(folder)
    with daemon:
        daemon.wait_state("web", "running")
        pid = daemon.wait_pid("web")
        restart = trace.calls(daemon.pid, lambda: os.kill(pid, signal.SIGKILL))
        daemon.wait_pid("web", other_than=pid)
        stop = trace.calls(daemon.pid, lambda: daemon.ctl("stop", "web").check_returncode())
    return {"restart": restart, "stop": stop}


def _of_the_accessory(folder: Path) -> list[str]:
    trace = Trace(folder)
    daemon = AccessoryDaemon(folder)
    daemon.program = trace.program(folder)
    with daemon:
        worker = daemon.wait_running("accessory")
        client = BenchClient(daemon.address)
        try:
            os.close(client.request(encode_request("first", ipc=True)))
            return trace.calls(worker, lambda: os.close(client.request(encode_request("second", ipc=True))))
        finally:
            client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="say which files they are")
    print(json.dumps(measure(parser.parse_args().files)))


if __name__ == "__main__":
    main()
