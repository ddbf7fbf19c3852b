#!/usr/bin/env python3
"""The reaper with the definition and the script that ship: how long cgroups stay, and what it costs.

Prints one line of JSON.  Of the modes (--modes, all where it is not given):

  burst    --count cgroups with a process each, all of which end at once: `seconds` from then until all
           cgroups are gone, `end_s` of them until all processes are
  steady   --rate a second run empty for --seconds: how long each stays (`stay_max_ms`), how many for ever (`missed`),
           `cpu_us` of the reaper for each, all its threads
  fresh    --count times a cgroup that is made, entered and left at once: how many are `missed`
  each     --count cgroups one after the other: `cpu_us` of the reaper for each, all its threads
  watched  --watched cgroups that nobody uses: memory, descriptors, and CPU time and wake-ups of --idle seconds
  inserts  --inserts cgroups, and a script that INSERTs each into PostgreSQL: `rows`, `rows_per_s` and the longest
           time that a call of the reaper's control socket took meanwhile (`longest_call_ms`)
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.bench.measure import cpu_of_threads_s, descriptors, median, pss_kb, rss_kb, wakeups
from tests.daemon import Daemon, wait_until
from tests.postgres import Postgres, postgres
from tests.unit.workers.reaper.ground import Ground, ground

CONF = Path(__file__).parents[2] / "conf"
PATIENCE = 120.0
INSERTS = """
local db = pg:new("%s")
assert(db:execute("CREATE TABLE released (path text, cpu float8)"))
function cgroup_released(cgroup)
  assert(db:execute("INSERT INTO released VALUES ($1, $2)", {cgroup.path, cgroup.cpu_total}))
end
"""


class Bench:
    """A reaper on a scope of its own."""

    def __init__(self, own: Ground, daemon: Daemon, pid: int) -> None:
        self.own = own
        self.daemon = daemon
        self.pid = pid
        self._number = 0

    def make(self, count: int) -> list[Path]:
        """New cgroups, once the reaper has seen them."""
        paths = []
        for _ in range(count):
            self._number += 1
            path = self.own.folder(str(self._number))
            path.mkdir()
            paths.append(path)
        self.settle()
        return paths

    def left(self) -> int:
        """How many there are; the link count of a folder tells."""
        return self.own.folder().stat().st_nlink - 2

    def wait_gone(self, left: int = 0) -> None:
        wait_until(lambda: self.left() <= left, "all cgroups to be deleted", PATIENCE, 0.001)

    def settle(self) -> None:
        """Wait until the reaper has had nothing to do for a while."""
        last, since = self.cpu(), time.monotonic()
        while time.monotonic() - since < 1.5:
            time.sleep(0.1)
            now = self.cpu()
            if now != last:
                last, since = now, time.monotonic()

    def cpu(self) -> float:
        return cpu_of_threads_s(self.pid)


@contextmanager
def running(script: str | None = None) -> Iterator[Bench]:
    """With the shipped definition, in which scope, places and user are the benchmark's own."""
    with ExitStack() as stack:
        own = stack.enter_context(ground())
        own.make()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reaper-bench-")))
        folder.chmod(0o755)
        (folder / "data").mkdir()
        (folder / "data").chmod(0o777)
        (folder / "reaper.lua").write_text(script or (CONF / "reaper.lua").read_text())
        text = (CONF / "services.d" / "reaper.lua").read_text()
        text = text.replace("/system.slice/system-cm4all.slice/bp-spawn.scope", own.scope)
        text = text.replace("/etc/cm4all/spawn/", f"{folder}/").replace("/var/lib/spawnd/", f"{folder}/data/")
        text = text.replace('database = "', f'spool = "{folder}/data/spool", database = "')
        text = text.replace("cm4all-spawn-reaper", "nobody", 1).replace(', group = "cm4all-spawn-reaper"', "")
        daemon = stack.enter_context(Daemon(folder, text))
        yield Bench(own, daemon, daemon.wait_running("reaper"))


# Starts the processes, as it has next to nothing to copy for each.  `leave PATH`: one that enters and ends;
# `hold PATH`: one that enters and stays until `end`; each is answered with a line.
FEEDER = """
import os, sys
gate, hold = os.pipe()
held = []
for line in sys.stdin:
    command, _, path = line.rstrip().partition(" ")
    if command == "end":
        os.close(hold)
        for pid in held:
            os.waitpid(pid, 0)
    else:
        fd = os.open(path + "/cgroup.procs", os.O_WRONLY)
        entered, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(fd, b"0")
                if command == "hold":
                    os.close(hold)
                    os.write(tell, b"x")
                    os.read(gate, 1)
            finally:
                os._exit(0)
        os.close(fd)
        os.close(tell)
        if command == "hold":
            os.read(entered, 1)
            held.append(pid)
        else:
            os.waitpid(pid, 0)
        os.close(entered)
    print(flush=True)
"""


@contextmanager
def feeding() -> Iterator[Callable[[str], None]]:
    """A feeder, and what has it carry out a command."""
    command = [sys.executable, "-ISc", FEEDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        reader, writer = process.stdout, process.stdin
        assert reader is not None
        assert writer is not None

        def feed(line: str) -> None:
            print(line, file=writer, flush=True)
            assert reader.readline() == "\n"

        yield feed
        writer.close()


def walk(paths: list[Path]) -> None:
    """One process that enters one cgroup after the other, and ends: the fastest way to have many run empty."""
    pid = os.fork()
    if pid == 0:
        try:
            for path in paths:
                fd = os.open(path / "cgroup.procs", os.O_WRONLY)
                os.write(fd, b"0")
                os.close(fd)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def burst(bench: Bench, count: int) -> dict[str, Any]:
    paths = bench.make(count)
    with feeding() as feed:
        for path in paths:
            feed(f"hold {path}")
        bench.settle()
        begun = time.perf_counter()
        feed("end")
        ended = time.perf_counter()
        bench.wait_gone()
        gone = time.perf_counter()
    return {"count": count, "end_s": round(ended - begun, 4), "seconds": round(gone - begun, 4)}


def steady(bench: Bench, rate: float, seconds: float) -> dict[str, Any]:
    paths = bench.make(int(rate * seconds))
    emptied: dict[str, float] = {}
    stays: list[float] = []
    deadline: float | None = None
    used = bench.cpu()

    def look() -> None:
        while deadline is None or (emptied and time.perf_counter() < deadline):
            time.sleep(0.002)
            there = set(os.listdir(bench.own.folder()))
            now = time.perf_counter()
            stays.extend(now - emptied.pop(name) for name in list(emptied) if name not in there)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with feeding() as feed:
            begun = time.perf_counter()
            for number, path in enumerate(paths):
                time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
                feed(f"leave {path}")
                emptied[path.name] = time.perf_counter()
    finally:
        deadline = time.perf_counter() + PATIENCE
        looking.join()
    stays.sort()
    bench.settle()  # until their rows are in the database
    return {
        "count": len(paths),
        "rate": rate,
        "missed": len(paths) - len(stays),
        "stay_median_ms": round(median(stays) * 1e3, 1),
        "stay_max_ms": round(stays[-1] * 1e3, 1),
        "cpu_us": round((bench.cpu() - used) / len(paths) * 1e6, 1),
    }


def fresh(bench: Bench, count: int) -> dict[str, Any]:
    begun = time.perf_counter()
    with feeding() as feed:
        for _ in range(count):
            bench._number += 1
            path = bench.own.folder(str(bench._number))
            path.mkdir()
            feed(f"leave {path}")
    fed = time.perf_counter()
    with suppress(TimeoutError):
        bench.wait_gone()
    gone = time.perf_counter()
    return {"count": count, "feed_s": round(fed - begun, 3), "after_s": round(gone - fed, 3), "missed": bench.left()}


def each(bench: Bench, count: int) -> dict[str, Any]:
    paths = bench.make(count)
    with feeding() as feed:
        bench.settle()
        before = bench.cpu()
        for path in paths:
            feed(f"leave {path}")
        bench.wait_gone()
    bench.settle()  # until their rows are in the database
    return {"count": count, "cpu_us": round((bench.cpu() - before) / count * 1e6, 1)}


def watched(bench: Bench, count: int, idle: float) -> dict[str, Any]:
    open_before = descriptors(bench.pid)
    bench.make(count)
    bench.settle()
    used, woken = bench.cpu(), wakeups(bench.pid)
    time.sleep(idle)
    result = {
        "count": count,
        "rss_kb": rss_kb(bench.pid),
        "pss_kb": pss_kb(bench.pid),
        "descriptors_each": (descriptors(bench.pid) - open_before) / count,
        "idle_cpu_percent": round((bench.cpu() - used) / idle * 100, 4),
        "idle_wakeups_per_s": round((wakeups(bench.pid) - woken) / idle, 2),
        "left": bench.left(),
    }
    for folder in bench.own.folder().iterdir():
        if folder.is_dir():
            folder.rmdir()
    return result


def inserts(bench: Bench, server: Postgres, count: int) -> dict[str, Any]:
    paths = bench.make(count)
    longest = 0.0
    over = threading.Event()
    sockets = [path for path in bench.daemon.runtime.rglob("reaper*") if path.is_socket()]
    path = next(path for path in sockets if "control" in str(path.relative_to(bench.daemon.runtime)))

    def call() -> None:
        nonlocal longest
        while not over.wait(0.005):
            begun = time.perf_counter()
            _get_info(path)
            longest = max(longest, time.perf_counter() - begun)

    calling = threading.Thread(target=call)
    calling.start()
    try:
        begun = time.perf_counter()
        walk(paths)
        fed = time.perf_counter()
        bench.wait_gone()
        wait_until(lambda: _rows(server) >= count, "all rows", PATIENCE, 0.05)
        ended = time.perf_counter()
    finally:
        over.set()
        calling.join()
    return {
        "count": count,
        "rows": _rows(server),
        "feed_s": round(fed - begun, 2),
        "seconds": round(ended - begun, 2),
        "rows_per_s": round(count / (ended - begun)),
        "longest_call_ms": round(longest * 1e3, 1),
    }


def _rows(server: Postgres) -> int:
    ((count,),) = server.execute("SELECT count(*) FROM released")
    assert isinstance(count, int)
    return count


def _get_info(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
        assert client.recv(65536)


def measure(modes: list[str], settings: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    runs: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "burst": lambda bench: burst(bench, settings.count),
        "steady": lambda bench: steady(bench, settings.rate, settings.seconds),
        "fresh": lambda bench: fresh(bench, settings.count),
        "each": lambda bench: each(bench, settings.count),
        "watched": lambda bench: watched(bench, settings.watched, settings.idle),
    }
    for mode in modes:
        if mode == "inserts":
            with postgres() as server, running(INSERTS % server.conninfo) as bench:
                found[mode] = inserts(bench, server, settings.inserts)
        else:
            with running() as bench:
                found[mode] = runs[mode](bench)
    return found


MODES = ("burst", "steady", "fresh", "each", "watched", "inserts")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    found.add_argument("--modes", default=",".join(MODES))
    found.add_argument("--count", type=int, default=500)
    found.add_argument("--rate", type=float, default=100)
    found.add_argument("--seconds", type=float, default=30)
    found.add_argument("--watched", type=int, default=10_000)
    found.add_argument("--idle", type=float, default=10)
    found.add_argument("--inserts", type=int, default=10_000)
    return found


def main() -> None:
    arguments = parser().parse_args()
    print(json.dumps(measure(arguments.modes.split(","), arguments)))


if __name__ == "__main__":
    main()
