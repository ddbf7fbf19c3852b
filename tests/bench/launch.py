#!/usr/bin/env python3
"""Starts of a program: how long until it runs, and what that costs spawnd.

Prints a line of JSON for each number of open descriptors: µs until the program runs; µs, CPU time and page faults in
the process that starts it, which stands in for spawnd and is as large.  Each number has a process of its own, and they
take turns, as all of them are slower while the machine is busy.  A service starts `again`, or a `new` one does.
`--before SITE` names a folder with another version, which takes turns with ours: `pip install --target SITE --no-deps
CHECKOUT`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

TABLE = 5  # descriptors of the service
COUNTS = (TABLE, 1000, 5000)
WARM_UP = 5  # starts at the beginning of a turn
TURN = 20  # starts
KINDS = ("again", "new")
Start = Callable[[Any, int, int], int]


def starters() -> dict[str, Start]:
    """Return what starts a `Launch`, with its end of a pair of sockets and ours, by the kind of a start."""
    try:
        from supervisor.launch.program import Program
        from supervisor.process import launch_plan
    except ImportError:
        return {"again": _forked, "new": _forked}
    program = Program()
    program.reserve()
    make_plan = launch_plan.make_plan

    def start(make: Callable[..., bytes], launch: Any, error: int, ours: int) -> int:
        arrival = program.arrival(launch_plan.descriptors(launch), error)
        return program.start(make(launch, arrival), arrival, error, ours)

    again = launch_plan.Plans().plan if hasattr(launch_plan, "Plans") else make_plan
    return {"again": partial(start, again), "new": partial(start, make_plan)}


def host_facts() -> dict[str, Any]:
    """Return the fields of a `Launch` that spawnd fills in once, as far as this version has them."""
    try:
        from supervisor.linux.signal_mask import ignored
    except ImportError:
        return {}
    return {"ignored": ignored()}


def _forked(launch: Any, _error: int, _ours: int) -> int:
    """Start a program like the last version without `launch`."""
    child, fork = import_module("supervisor.process.child"), import_module("supervisor.process.fork").fork
    child.prepare(launch)
    pid: int = fork(lambda: child.run(launch))
    return pid


def serve() -> None:
    """Make a start for each line, and print what it took.

    The line has the number of open descriptors, and the kind of the start.
    """
    import supervisor.boot  # noqa: F401  # to be as large as spawnd
    from supervisor.definitions.service import Service
    from supervisor.process.files import rights_of
    from supervisor.process.launch import Launch

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    start, facts = starters(), host_facts()
    service = Service("bench", uid=65534, gid=65534, env={"PATH": "/usr/bin:/bin"})
    table = [socket.socket(socket.AF_UNIX) for _ in range(TABLE)]
    fds = tuple((f"n{number}", sock.fileno()) for number, sock in enumerate(table))
    others: list[socket.socket] = []
    gc.freeze()
    for line in sys.stdin:
        count, kind = line.split()
        others += [socket.socket(socket.AF_UNIX) for _ in range(int(count) - TABLE - len(others))]
        ours, theirs = socket.socketpair()
        launch = Launch(
            argv=("/bin/true",), env=service.env, service=service, stdio=("/dev/null",) * 3, fds=fds,
            error_fd=theirs.fileno(), nofile_soft=1024, is_root=os.geteuid() == 0, rights=rights_of(service),
            **facts,
        )  # fmt: skip
        end = select.poll()
        end.register(ours, select.POLLIN)
        with theirs:
            usage, cpu, begun = resource.getrusage(resource.RUSAGE_SELF), time.process_time(), time.perf_counter()
            pid = start[kind](launch, theirs.fileno(), ours.fileno())
            called = time.perf_counter()
            spent, faults = time.process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        ours.send(b"\n")
        end.poll()  # like spawnd; a blocking recv() is also woken when its byte is read
        assert ours.recv(1) == b"", "it has failed"
        runs = time.perf_counter()
        os.waitpid(pid, 0)
        ours.close()
        took = (runs - begun, called - begun, spent)
        print(json.dumps([*(round(value * 1e6) for value in took), faults - usage.ru_minflt]), flush=True)


class Version:
    """A process with one version of spawnd."""

    def __init__(self, site: str) -> None:
        path = [site] if site else []
        command = [sys.executable, "-Pc", f"import sys; sys.path[:0] = {path!r}\n{_SERVE.format(__file__)}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, count: int, kind: str) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count} {kind}\n")
        self._process.stdin.flush()
        found: list[int] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


_SERVE = "import runpy; runpy.run_path({0!r})['serve']()"
NAMES = ("until_it_runs_us", "in_spawnd_us", "in_spawnd_cpu_us", "in_spawnd_faults")


def measure(rounds: int, before: str) -> list[dict[str, Any]]:
    sites = {"now": ""} | ({"before": before} if before else {})
    processes = {(count, name): Version(site) for count in COUNTS for name, site in sites.items()}
    found: dict[tuple[int, str, str], list[list[int]]] = {}
    for _ in range(0, rounds, TURN):
        for (count, name), process in processes.items():
            for kind in KINDS:
                starts = [process.start(count, kind) for _ in range(WARM_UP + TURN)]
                found.setdefault((count, name, kind), []).extend(starts[WARM_UP:])
    rows = []
    for (count, name, kind), measured in found.items():
        medians = [sorted(column)[len(column) // 2] for column in zip(*measured, strict=True)]
        rows.append({"descriptors": count, "version": name, "start": kind, **dict(zip(NAMES, medians, strict=True))})
    for process in processes.values():
        process.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--before", default="", metavar="SITE")
    arguments = parser.parse_args()
    for row in measure(arguments.rounds, arguments.before):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
