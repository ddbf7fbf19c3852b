#!/usr/bin/env python3
"""Services on demand: what many of them cost while they sleep, how fast one wakes, and whether a client is lost.

Prints one line of JSON for each measurement.  `many`: the same services with `status = "stop"` and with
`status = "demand"`, each with a TCP socket, in files of 1,000: memory of spawnd (`pss_kb`), its wake-ups at rest,
and the time of an `apply` of one change.  `wake`: milliseconds from connect(2) to the first byte of a C program,
among those services, one client at a time.  `flood`: a client for each of many sleeping services, all at once.
`cycles`: clients at random moments, of services that end after one client or after a while without one, and of
one that is ordered to sleep all the time.  `idle`: clients at random moments, of many services that sleep when they are
idle: they take TERM by default, or serve what they have accepted.  `dump`: milliseconds of the processor for a list of
connections while there are tens of thousands in TIME_WAIT.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from supervisor.ctl.client import Client
from supervisor.linux.namespaces import CLONE_NEWNET, unshare
from supervisor.linux.socket_state import _tcp_sockets, tcp_connections
from tests.bench.listeners import Clients
from tests.bench.measure import cpu_s, descriptors, median, pss_kb, wakeups
from tests.daemon import Daemon, call, wait_until

PER_FILE = 1000
LONGEST = 120.0  # seconds for the least number of clients
SPARE = 500  # descriptors of spawnd beside the sockets

# Serve up to `words[1]` clients of descriptor 3, and end after `words[2]` milliseconds without one (0: never).
# TERM ends it while it waits, and never while it serves.
SERVER = r"""
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
	const int idle = atoi(words[2]);
	const struct timespec limit = { .tv_sec = idle / 1000, .tv_nsec = idle % 1000 * 1000000L };
	struct pollfd clients = { .fd = 3, .events = POLLIN };
	sigset_t none, term;
	int left = atoi(words[1]);

	sigemptyset(&none);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_SETMASK, &term, 0);
	while (left--) {
		int client;

		if (ppoll(&clients, 1, idle ? &limit : 0, &none) <= 0)
			return 0;
		client = accept4(3, 0, 0, SOCK_CLOEXEC);
		if (client < 0 || write(client, "ok\n", 3) != 3)
			continue;
		close(client);
	}
	return 0;
}
"""
# Answer a question of each client of descriptor 3: `plain` takes TERM by default, `handled` ends at TERM once it has
# served what it has accepted.
IDLE_SERVER = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t ends;

static void end(int number)
{
	(void)number;
	ends = 1;
}

int main(int count, char **words)
{
	const struct sigaction action = { .sa_handler = end };

	if (count > 1 && !strcmp(words[1], "handled"))
		sigaction(SIGTERM, &action, 0);
	while (!ends) {
		char question;
		int client = accept4(3, 0, 0, SOCK_CLOEXEC);

		if (client < 0)
			continue;
		while (read(client, &question, 1) < 0)
			;
		while (write(client, "ok\n", 3) < 0)
			;
		close(client);
	}
	return 0;
}
"""
IDLE_SERVICE = (
    's{number:05} = {{ status = "demand", idle_stop = {idle}, exec = "{program}", arg = {{ "{kind}" }}, {socket} }}\n'
)
SERVICE = 's{number:05} = {{ status = "{status}", exec = "{program}", arg = {{ "{clients}", "{idle}" }}, {more} }}\n'
SOCKET = 'fd = { tcp("127.0.0.1", 0, { backlog = 512 }) }'


def compiled(folder: Path) -> str:
    """Compile the server and return its path."""
    (folder / "server.c").write_text(SERVER)
    subprocess.run(["cc", "-O2", "-static", "-o", str(folder / "server"), str(folder / "server.c")], check=True)
    return str(folder / "server")


def compiled_idle(folder: Path) -> str:
    (folder / "idle.c").write_text(IDLE_SERVER)
    subprocess.run(["cc", "-O2", "-static", "-o", str(folder / "idle"), str(folder / "idle.c")], check=True)
    return str(folder / "idle")


def service(number: int, program: str, status: str = "demand", clients: int = 1, idle: int = 0) -> str:
    return SERVICE.format(number=number, status=status, program=program, clients=clients, idle=idle, more=SOCKET)


@contextmanager
def supervised(texts: list[str], folder: Path) -> Iterator[tuple[Daemon, Client]]:
    """Run spawnd with these services, in files of `PER_FILE`, until none of them is about to be asleep."""
    daemon = Daemon(folder, "", "--log-level", "warning")
    daemon.definitions.unlink()
    daemon.definitions.mkdir()
    for first in range(0, len(texts), PER_FILE):
        (daemon.definitions / f"{first:05}.lua").write_text("".join(texts[first : first + PER_FILE]))
    with daemon:
        client = Client(str(daemon.socket))
        wait_until(lambda: at_rest(client) == len(texts), "rest", patience=120, pause=0.3)
        yield daemon, client
        client.close()


def at_rest(client: Client) -> int:
    return sum(row["state"] in ("asleep", "stopped") for row in client.call("List")["services"] if not row["internal"])


def port_of(client: Client, name: str) -> int:
    row = next(row for row in client.call("Fds", name=name)["descriptors"] if row["number"] == 3)
    return int(row["what"].rpartition(":")[2])


def measure_many(count: int, seconds: float, wakes: int) -> list[dict[str, Any]]:
    """Compare services that sleep with the same ones stopped; then wake some of those that sleep."""
    results = []
    for status in ("stop", "demand"):
        with new_folder() as folder:
            program = compiled(folder)
            texts = [service(number, program, status) for number in range(count)]
            with supervised(texts, folder) as (daemon, client):
                result: dict[str, Any] = {"measure": "many", "services": count, "status": status}
                result |= measure_rest(daemon, seconds) | measure_apply(daemon, client, texts)
                result["pss_after_apply_kb"] = pss_kb(daemon.pid)
                results.append(result)
                if status == "demand":
                    results.append(measure_wakes(client, wakes, count))
    return results


def measure_rest(daemon: Daemon, seconds: float) -> dict[str, Any]:
    time.sleep(2)  # what a start leaves to be done has been done
    woken, used = wakeups(daemon.pid), cpu_s(daemon.pid)
    time.sleep(seconds)
    return {
        "wakeups": wakeups(daemon.pid) - woken,
        "cpu_ms": round((cpu_s(daemon.pid) - used) * 1000, 3),
        "pss_kb": pss_kb(daemon.pid),
        "descriptors": descriptors(daemon.pid),
    }


def measure_apply(daemon: Daemon, client: Client, texts: list[str]) -> dict[str, Any]:
    times = []
    for number in range(3):
        changed = texts[0].replace("fd =", f'description = "{number}", fd =')
        (daemon.definitions / "00000.lua").write_text("".join([changed, *texts[1:PER_FILE]]))
        begun = time.perf_counter()
        client.call("Apply")
        times.append(time.perf_counter() - begun)
    return {"apply_s": round(median(times), 3)}


def measure_wakes(client: Client, rounds: int, count: int) -> dict[str, Any]:
    """Wake services one after the other, each by a client that waits for its answer."""
    times = []
    for number in range(rounds):
        address = ("127.0.0.1", port_of(client, f"s{number * count // rounds:05}"))
        time.sleep(0.05)
        begun = time.perf_counter()
        with socket.create_connection(address, 30) as asking:
            if asking.recv(10) != b"ok\n":
                raise RuntimeError("a client got no answer")
            times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return {
        "measure": "wake",
        "services": count,
        "wakes": rounds,
        "first_byte_median_ms": round(median(times), 2),
        "first_byte_95_ms": round(times[len(times) * 95 // 100], 2),
    }


def measure_flood(count: int) -> dict[str, Any]:
    """Wake many services at once, while another client of spawnd looks how long its turns are."""
    with new_folder() as folder:
        program = compiled(folder)
        with supervised([service(number, program) for number in range(count)], folder) as (daemon, client):
            addresses = [("127.0.0.1", port_of(client, f"s{number:05}")) for number in range(count)]
            fds, used = descriptors(daemon.pid), cpu_s(daemon.pid)
            with Looks(daemon) as looks:
                begun = time.perf_counter()
                clients = [socket.create_connection(address, 60) for address in addresses]
                answered = sum(asking.recv(10) == b"ok\n" for asking in clients)
                seconds = time.perf_counter() - begun
            for asking in clients:
                asking.close()
            wait_until(lambda: at_rest(client) == count, "sleep", patience=60)
            return {
                "measure": "flood",
                "services": count,
                "unanswered": count - answered,
                "all_served_s": round(seconds, 3),
                "cpu_ms_per_wake": round((cpu_s(daemon.pid) - used) / count * 1000, 2),
                **looks.result(),
                "descriptors_leaked": descriptors(daemon.pid) - fds,
            }


class Looks:
    """How long spawnd lets another client wait, from `with` to its end."""

    def __init__(self, daemon: Daemon) -> None:
        self._socket = daemon.socket
        self._times: list[float] = []
        self._ends = Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ends.wait(0.01):
            begun = time.perf_counter()
            call(self._socket, "GetVersion", timeout=60)
            self._times.append((time.perf_counter() - begun) * 1000)

    def result(self) -> dict[str, float]:
        times = sorted(self._times)
        return {"looks": len(times), "look_median_ms": round(median(times), 2), "look_max_ms": round(times[-1], 2)}


def measure_cycles(seconds: float, rate: float, services: int = 6, least: int = 0) -> dict[str, Any]:
    """Let clients come at random moments to services that go to sleep all the time.

    On a busy machine this takes longer than `seconds`, until `least` clients have come, but not for ever.
    """
    with new_folder() as folder:
        program = compiled(folder)
        kinds = [(1, 0), (1_000_000, 3), (1_000_000, 0)]  # after one client; without one; when it is ordered to
        texts = [service(number, program, "demand", *kinds[number % 3]) for number in range(services)]
        with supervised(texts, folder) as (daemon, client):
            ports = [port_of(client, f"s{number:05}") for number in range(services)]
            before = descriptors(daemon.pid), pss_kb(daemon.pid)
            ordered = [f"s{number:05}" for number in range(services) if number % 3 == 2]
            begun = time.monotonic()
            with Clients(ports, rate) as clients:
                while (took := time.monotonic() - begun) < seconds or (clients.total < least and took < LONGEST):
                    client.call("Sleep", names=ordered)
            client.call("Sleep", names=ordered)
            wait_until(lambda: at_rest(client) == services, "sleep", patience=60)
            names = [f"s{number:05}" for number in range(services)]
            rows = client.call("Status", names=names)["services"]
            return {
                "measure": "cycles",
                "services": services,
                "seconds": seconds,
                **clients.result(),
                "failures": sum(row["failures"] for row in rows),
                "starts": sum(row["starts"] for row in rows),
                "descriptors_leaked": descriptors(daemon.pid) - before[0],
                "pss_grown_kb": pss_kb(daemon.pid) - before[1],
            }


class Askers:
    """Clients at random moments that ask after a moment, `rate` of them a second, from `with` to its end."""

    def __init__(self, ports: list[int], rate: float, count: int = 16) -> None:
        self.total = self.refused = self.reset = self.unanswered = 0
        self._ports = ports
        self._pause = count / rate
        self._ends = Event()
        self._threads = [Thread(target=self._run, args=(number,)) for number in range(count)]

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        choice = random.Random(number)
        while not self._ends.wait(choice.expovariate(1 / self._pause)):
            self._ask(choice.choice(self._ports), choice.random() * 0.02)

    def _ask(self, port: int, pause: float) -> None:
        self.total += 1
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                time.sleep(pause)
                client.sendall(b"?")
                self.unanswered += client.recv(10) != b"ok\n"
        except OSError as error:
            self.refused += error.errno == errno.ECONNREFUSED
            self.reset += error.errno in (errno.ECONNRESET, errno.EPIPE)
            self.unanswered += error.errno not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)

    def result(self) -> dict[str, int]:
        lost = {"refused": self.refused, "reset": self.reset, "unanswered": self.unanswered}
        return {"clients": self.total, **lost}


def measure_idle(cycles: int, services: int, rate: float, idle: float = 0.1, patience: float = 7200) -> dict[str, Any]:
    """Let clients wake services that sleep when they are idle, until they have slept so many times."""
    with new_folder() as folder:
        program = compiled_idle(folder)
        kinds = ("plain", "handled")
        fields = {"program": program, "idle": idle, "socket": SOCKET}
        texts = [IDLE_SERVICE.format(number=number, kind=kinds[number % 2], **fields) for number in range(services)]
        with supervised(texts, folder) as (daemon, client):
            names = [f"s{number:05}" for number in range(services)]
            ports = [port_of(client, name) for name in names]
            before = descriptors(daemon.pid), pss_kb(daemon.pid)
            used, begun = cpu_s(daemon.pid), time.monotonic()
            with Askers(ports, rate) as clients:
                wait_until(lambda: starts_of(client, names) >= cycles, "the cycles", patience, 0.5)
            seconds = time.monotonic() - begun
            wait_until(lambda: at_rest(client) == services, "sleep", patience=60)
            rows = client.call("Status", names=names)["services"]
            starts = sum(row["starts"] for row in rows)
            return {
                "measure": "idle",
                "services": services,
                "cycles": starts,
                "seconds": round(seconds, 1),
                **clients.result(),
                "cpu_ms_per_cycle": round((cpu_s(daemon.pid) - used) / starts * 1000, 2),
                "failures": sum(row["failures"] for row in rows),
                "descriptors_leaked": descriptors(daemon.pid) - before[0],
                "pss_grown_kb": pss_kb(daemon.pid) - before[1],
            }


def starts_of(client: Client, names: list[str]) -> int:
    return sum(row["starts"] for row in client.call("Status", names=names)["services"])


def measure_dump(count: int) -> dict[str, Any]:
    """List the connections of a port in a network namespace that has so many sockets in TIME_WAIT."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, json.dumps(dump_among(count)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        found: dict[str, Any] = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return found


def dump_among(count: int) -> dict[str, Any]:
    unshare(CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    settings = {"ip_local_port_range": "10000 65000", "tcp_max_tw_buckets": "500000", "tcp_tw_reuse": "0"}
    for name, value in settings.items():
        (Path("/proc/sys/net/ipv4") / name).write_text(value)
    listeners = [socket.create_server(("127.0.0.1", 80 + number)) for number in range(count // 50_000 + 1)]
    for number in range(count):
        listener = listeners[number % len(listeners)]
        client = socket.create_connection(listener.getsockname())
        accepted = listener.accept()[0]
        client.close()
        accepted.close()
    kept = socket.create_connection(listeners[0].getsockname())
    waiting = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    times = {"ours": [], "all": []}  # type: dict[str, list[float]]
    for _ in range(5):
        begun = time.process_time()
        found = list(tcp_connections(socket.AF_INET, [80]))
        times["ours"].append((time.process_time() - begun) * 1000)
        begun = time.process_time()
        everything = sum(1 for _ in _tcp_sockets(socket.AF_INET, 0xFFF, 0))
        times["all"].append((time.process_time() - begun) * 1000)
    kept.close()
    return {
        "measure": "dump",
        "in_time_wait": int(waiting.split()[waiting.split().index("tw") + 1]),
        "found": len(found),
        "cpu_ms": round(median(times["ours"]), 2),
        "sockets": everything,
        "cpu_ms_of_all": round(median(times["all"]), 2),
    }


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spawnd-sleep-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def raise_limit(count: int) -> None:
    """Let this process, and spawnd with it, have a descriptor for each of so many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, count + SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--many", type=int, default=10_000, help="sleeping services (0: leave out)")
    parser.add_argument("--rest", type=float, default=20, help="seconds at rest")
    parser.add_argument("--wakes", type=int, default=200)
    parser.add_argument("--flood", type=int, default=200, help="services that are woken at once (0: leave out)")
    parser.add_argument("--cycles", type=float, default=30, help="seconds of clients at random moments (0: leave out)")
    parser.add_argument("--idle", type=int, default=2000, help="times that idle services sleep (0: leave out)")
    parser.add_argument("--idle-services", type=int, default=100, help="idle services")
    parser.add_argument("--dump", type=int, default=67_000, help="sockets in TIME_WAIT (0: leave out)")
    parser.add_argument("--rate", type=float, default=200, help="clients a second")
    arguments = parser.parse_args()
    raise_limit(max(arguments.many, arguments.flood))
    if arguments.many:
        for result in measure_many(arguments.many, arguments.rest, arguments.wakes):
            print(json.dumps(result), flush=True)
    if arguments.flood:
        print(json.dumps(measure_flood(arguments.flood)), flush=True)
    if arguments.cycles:
        print(json.dumps(measure_cycles(arguments.cycles, arguments.rate)), flush=True)
    if arguments.idle:
        print(json.dumps(measure_idle(arguments.idle, arguments.idle_services, arguments.rate)), flush=True)
    if arguments.dump:
        print(json.dumps(measure_dump(arguments.dump)), flush=True)


if __name__ == "__main__":
    main()
