#!/usr/bin/env python3
"""kill -9 of spawnd again and again while clients connect to its services, or while these restart all the time.

Prints one line of JSON.  Control is back when the spawnd that is started anew answers.

With `--restarting` each service ends by itself after a while.  The processes of a service have a lock, so each of
them finds out whether another one runs.  All that a lost spawnd leaves behind becomes a child of the benchmark, a
subreaper, so none is overlooked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import prctl

from tests.bench.listeners import Clients, definitions, running, wait_running
from tests.bench.measure import descriptors, median, pss_kb
from tests.daemon import Daemon, children, start_time, wait_until
from tests.ports import free_ports

# Lock a file, or say that another process has it; then live for up to `LIFE` seconds.
RESTARTING = (
    'open F, ">>", $ARGV[0] or die; flock F, 6 or do { open T, ">>", "$ARGV[0].twice"; syswrite T, "$$\\n"; exit };'
    'syswrite F, "."; select undef, undef, undef, rand %s'
)
ENDING = """s%03d = { exec = "/usr/bin/perl", arg = { "-e", [[%s]], "%s/s%03d" }, user = "root", healthy_after = "1ms",
    start_limit = false, backoff = { first = "1ms", max = "1ms" } }\n"""
LIFE = 4.0
LONGEST = 0.3  # seconds from an answer to the next loss, and from a loss to the next start
EARLY = 0.2  # share of the losses of a spawnd that may not have answered yet
REAP = 0.005  # seconds


def measure(services: int, losses: int, rate: float) -> dict[str, Any]:
    ports = free_ports(services)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with Daemon(Path(name), definitions(ports, name), "--log-level", "warning") as daemon:
            pids = wait_running(daemon, services, name)
            back, states = [], []
            with Clients(ports, rate) as clients:
                for _ in range(losses):
                    lose(daemon)
                    begun = time.perf_counter()
                    daemon.start()
                    wait_until(daemon.answers, "an answer", 60, 0.002)
                    back.append((time.perf_counter() - begun) * 1000)
                    if running(name) != pids:
                        raise RuntimeError("a service was restarted, or runs twice")
                    states.append({"descriptors": descriptors(daemon.pid), "pss_kb": pss_kb(daemon.pid)})
                    time.sleep(0.5)  # for a start too many to show
            twice = len(running(name)) - services
            rows = daemon.services().values()
            return {
                "services": services,
                "losses": losses,
                **clients.result(),
                "restarted": sum(row["restarts"] for row in rows) + (running(name) != pids),
                "run_twice": twice,
                "control_back_median_ms": round(median(back), 1),
                "control_back_max_ms": round(max(back), 1),
                "first": states[0],
                "last": states[-1],
            }


def lose(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.remember(children(daemon.pid))
    daemon.process.kill()
    daemon.process.wait()


def measure_restarting(services: int, losses: int) -> dict[str, Any]:
    """The same while all services end again and again; a loss may hit spawnd while it starts, or takes over."""
    chance = random.Random(1)
    program = RESTARTING % LIFE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "".join(ENDING % (number, program, name, number) for number in range(services))
        with Daemon(folder, text, "--log-level", "warning") as daemon, adopted(daemon) as orphans:
            wait_until(lambda: len(list(folder.glob("s[0-9]*"))) == services, "all programs", 120)
            back, unregistered = [], 0
            for _ in range(losses):
                time.sleep(chance.uniform(0, LONGEST))
                lose(daemon)
                time.sleep(chance.choice([0, chance.uniform(0, LONGEST)]))
                begun = time.perf_counter()
                daemon.start()
                if chance.random() < EARLY:
                    time.sleep(chance.uniform(0, LONGEST))
                    continue
                wait_until(daemon.answers, "an answer", 60, 0.002)
                back.append((time.perf_counter() - begun) * 1000)
                unregistered += len(unknown(daemon, orphans()))
            wait_until(daemon.answers, "an answer", 60)
            starts = all_starts(daemon)
            wait_until(lambda: all(all_starts(daemon)[one] > starts[one] for one in starts), "all restarted", 120, 0.5)
            unregistered += len(unknown(daemon, orphans()))
            daemon.stop()
            return {
                "services": services,
                "losses": losses,
                "restarts": sum(path.stat().st_size for path in folder.glob("s[0-9]*")) - services,
                "run_twice": sum(len(path.read_text().split()) for path in folder.glob("*.twice")),
                "unregistered": unregistered,
                "left": orphans() + sorted(path.name for path in daemon.runtime.glob("*")),
                "control_back_median_ms": round(median(back), 1),
                "control_back_max_ms": round(max(back), 1),
            }


def all_starts(daemon: Daemon) -> dict[str, int]:
    return {name: row["restarts"] for name, row in daemon.services().items()}


def unknown(daemon: Daemon, orphans: list[int]) -> list[int]:
    """Return the programs of services, alive before and after an answer, that this spawnd did not name in it."""

    def alive() -> set[tuple[int, int | None]]:
        pids = [*orphans, *children(daemon.pid)]
        return {(pid, start_time(pid)) for pid in pids if _is_program(pid)}

    before = alive()
    named = {row["pid"] for row in daemon.services().values()}
    return [pid for pid, started in before & alive() if started is not None and pid not in named]


def _is_program(pid: int) -> bool:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe").rpartition("/")[2].startswith("perl")
    return False


@contextmanager
def adopted(daemon: Daemon) -> Iterator[Callable[[], list[int]]]:
    """Be a subreaper, and reap orphans as process 1 does.  Yields a function that returns those that live."""
    own, ends = set(children(os.getpid())), Event()

    def orphans() -> list[int]:
        return [pid for pid in children(os.getpid()) if pid not in own and pid != daemon.pid]

    def reap() -> None:
        while not ends.wait(REAP):
            for pid in orphans():
                with suppress(ChildProcessError):  # a spawnd that was reaped meanwhile
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    prctl.set_child_subreaper(1)
    thread = Thread(target=reap)
    thread.start()
    try:
        yield orphans
    finally:
        ends.set()
        thread.join()
        prctl.set_child_subreaper(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--losses", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="clients a second")
    parser.add_argument("--restarting", action="store_true", help="services that end again and again, without clients")
    arguments = parser.parse_args()
    if arguments.restarting:
        result = measure_restarting(arguments.services, arguments.losses)
    else:
        result = measure(arguments.services, arguments.losses, arguments.rate)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
