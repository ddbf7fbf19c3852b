#!/usr/bin/env python3
"""Starts that hang in a file system whose server does not answer: how late spawnd's loop is meanwhile.

Prints one line of JSON.  A client calls spawnd over an open connection all the time, so a call takes at least as
long as the loop does something else.  `alone` are calls without such a start, `local` those while services with the
same keys start from a local file system.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from tests import fuse
from tests.bench.measure import median, waited_s
from tests.daemon import Daemon, children, command_name, encode_call, receive

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }, '
# by service: the request that is not answered, and the keys
HUNG = {
    "cwd": (fuse.ACCESS, SLEEP + 'cwd = "%(folder)s"'),
    "exec": (fuse.OPEN, 'exec = "%(path)s"'),
    "chroot": (fuse.ACCESS, SLEEP + 'chroot = "%(folder)s"'),
    "env_file": (fuse.OPEN, SLEEP + 'env_file = "%(path)s"'),
    "log_open": (fuse.OPEN, SLEEP + 'stdout = file("%(path)s", "a")'),
    "log_lookup": (fuse.LOOKUP, SLEEP + 'stdout = file("%(path)s", "a")'),
}
PAUSE = 0.001  # seconds between two calls


@contextmanager
def places(hang: bool) -> Iterator[dict[str, str]]:
    """Paths of a file by service, each on a file system of its own that does not answer, or all in a folder."""
    with ExitStack() as stack:
        if hang:
            yield {name: stack.enter_context(fuse.unanswering(opcode)) for name, (opcode, _keys) in HUNG.items()}
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in HUNG:
            (folder / name).write_text("#!/bin/sh\nexec /bin/sleep 100000\n" if name == "exec" else "")
            (folder / name).chmod(0o755)
        yield {name: str(folder / name) for name in HUNG} | {"chroot": "/file"}


def definitions(paths: dict[str, str]) -> str:
    return "".join(
        f"{name} = {{ {keys % {'path': paths[name], 'folder': os.path.dirname(paths[name])}}, user = 'root', "
        "status = 'stop', stop_timeout = '1s', start_timeout = '100000s' }\n"
        for name, (_opcode, keys) in HUNG.items()
    )


def involved(daemon: Daemon) -> set[int]:
    return {os.getpid(), daemon.pid, *children(daemon.pid)}


def calls(daemon: Daemon, seconds: float) -> dict[str, float]:
    """Return how many milliseconds the calls of so many seconds have taken."""
    times, of_spawnd = [], []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.settimeout(60)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executed = {child for child in children(daemon.pid) if command_name(child) != "spawnd"}
            before = {pid: waited_s(pid) for pid in involved(daemon) - executed}
            begun = time.perf_counter()
            client.sendall(encode_call("GetVersion"))
            receive(client)
            took = time.perf_counter() - begun
            waited = sum(waited_s(pid) - before.get(pid, 0.0) for pid in involved(daemon) - executed)
            times.append(took * 1000)
            of_spawnd.append((took - waited) * 1000)
            time.sleep(PAUSE)
    times.sort()
    return {
        "number": len(times),
        "median": round(median(times), 2),
        "p99": round(times[len(times) * 99 // 100], 2),
        "max": round(times[-1], 2),
        "spawnd_max": round(max(of_spawnd), 2),
    }


def start_all(daemon: Daemon, pause: float) -> None:
    for service in HUNG:
        daemon.ctl("start", "--no-wait", service)
        time.sleep(pause)


def measure(seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in ("hung", "local"):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.chmod(0o755)
            servers = stack.enter_context(ExitStack())
            paths = servers.enter_context(places(hang=name == "hung"))
            daemon = stack.enter_context(Daemon(folder, definitions(paths)))
            stack.callback(servers.close)  # a process that hangs ends once its server has gone
            result.setdefault("alone_ms", calls(daemon, seconds))
            starts = Thread(target=start_all, args=(daemon, seconds / len(HUNG) / 2))
            starts.start()
            result[f"{name}_ms"] = calls(daemon, seconds)
            starts.join()
            result[f"{name}_states"] = sorted({daemon.state(service) for service in HUNG})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.seconds)))


if __name__ == "__main__":
    main()
