#!/usr/bin/env python3
"""One process for each connection: connections a second and latency of inetd-style servers, side by side.

Each server listens on a loopback port and starts a small static program for each connection, which writes "ok" and
exits. floor is a C program that accepts and does vfork and exec; python is the same with os.posix_spawn; acceptor is
ours without spawnd, cgroups the same as nobody with a cgroup for each session, limits with limits in force as well,
memory and processes where the host can limit these.  xinetd and tcpserver are the packages xinetd and ucspi-tcp of
Debian.  `--sessions N` makes as many connections in the end, and prints the memory of each server before and after.
`--flood N` makes N connections from one address to an acceptor that permits 10 of them at a time, while another
address asks ten times a second.  `--kills` has 50 sessions of a service of a real spawnd outlive 20 kills of its
acceptor and 5 of spawnd, and counts sessions that were cut, wrong numbers, and clients beyond the limit that were let
in.  Prints one line of JSON each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
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

from tests.daemon import Daemon, call, wait_until
from tests.ports import free_port
from tests.unit.launch.accepting import Acceptor, is_answered, is_let_in
from tests.unit.process import cgroups

BACKLOG = 1024
NOBODY = 65534
LIMITS = {"memory_max": str(64 << 20), "pids_max": "10"}
STAND_IN = {"cgroup.max.depth": "1", "cgroup.max.descendants": "1"}  # as much work, where no controller is
MANY = 1000  # sessions at a time, which nobody reaches
PROGRAM = '#include <unistd.h>\nint main(void) { return write(1, "ok\\n", 3) != 3; }\n'
FLOOR = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
	const int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(atoi(words[count - 2])) };

	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	signal(SIGCHLD, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (void *)&here, sizeof here) || listen(listener, 1024))
		return 1;
	for (;;) {
		const int connection = accept4(listener, 0, 0, SOCK_CLOEXEC);

		if (connection < 0)
			continue;
		if (vfork() == 0) {
			dup2(connection, 0);
			dup2(connection, 1);
			execl(words[count - 1], words[count - 1], (char *)0);
			_exit(1);
		}
		close(connection);
	}
}
"""
PYTHON = """
import os, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
while True:
    connection, _ = listener.accept()
    moves = [(os.POSIX_SPAWN_DUP2, connection.fileno(), target) for target in (0, 1)]
    os.posix_spawn(sys.argv[2], [sys.argv[2]], {}, file_actions=moves)
    connection.close()
"""
FLOOD = """
import socket, sys
clients = []
for _ in range(int(sys.argv[2])):
    clients.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30, ("127.0.0.2", 0)))
    if len(clients) > 200:
        clients.pop(20).close()  # 10 of the first ones have a session
"""
SESSIONS = 50
KILLED = """
echo = {{
    exec = "/bin/cat", fd = {{ tcp("127.0.0.1", {port}) }},
    accept = {{ max = 50, on_limit = "refuse" }},
}}
"""
FLOODED = """
echo = {{
    exec = "/bin/cat", fd = {{ tcp("127.0.0.1", {port}, {{ backlog = 1024 }}) }}, stderr = log(),
    accept = {{ max = 1000, per_source = 10, linger = false }},
}}
"""
XINETD = """
defaults
{{
 instances = UNLIMITED
 cps = 1000000 1
 per_source = UNLIMITED
}}
service ok
{{
 type = UNLISTED
 port = {port}
 bind = 127.0.0.1
 socket_type = stream
 protocol = tcp
 wait = no
 user = nobody
 server = {program}
}}
"""


def command_of(name: str, folder: Path, port: int) -> list[str]:
    """Return the command of a server that is no part of ours."""
    program = folder / "ok"
    match name:
        case "floor":
            return [str(folder / "floor"), str(port), str(program)]
        case "python":
            return [sys.executable, "-S", "-E", str(folder / "server.py"), str(port), str(program)]
        case "tcpserver":
            return [name, "-HRDl0", "-c", str(MANY), "-b", str(BACKLOG), "127.0.0.1", str(port), str(program)]
        case "xinetd":
            (folder / "xinetd.conf").write_text(XINETD.format(port=port, program=program))
            names = {"-f": "xinetd.conf", "-filelog": "log", "-pidfile": "pid"}
            return ["xinetd", "-dontfork", *(word for key, name in names.items() for word in (key, str(folder / name)))]
    raise ValueError(name)


@contextmanager
def serving(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Run a server; yields its port and pid."""
    port = free_port()
    if name in ("acceptor", "cgroups", "limits"):
        with ExitStack() as stack:
            changes = {} if name == "acceptor" else in_cgroups(stack, LIMITS if name == "limits" else {})
            listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
            argv = (str(folder / "ok"),)
            acceptor = stack.enter_context(Acceptor(argv, listener=listener, max=MANY, environment={}, **changes))
            acceptor.ask()
            yield port, acceptor.pid
        return
    command = command_of(name, folder, port)
    server = subprocess.Popen(command, stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
    try:
        yield port, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


def in_cgroups(stack: ExitStack, limits: dict[str, str]) -> dict[str, Any]:
    """Return the options of an acceptor with a cgroup for each session, in a subtree that goes with the stack."""
    leaf = stack.enter_context(cgroups.subtree()).leaf("ok")
    leaf.prepare({})
    leaf.part(NOBODY)
    found, notices = leaf.limit_sessions(limits)
    print(*notices, sep="\n", end="\n" if notices else "", file=sys.stderr)
    folder = os.open(f"{leaf.path}/sessions", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, folder)

    def become_nobody() -> None:
        Path(leaf.own, "cgroup.procs").write_text("0")
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    in_force = found or (STAND_IN if limits else {})
    Path(leaf.path, "sessions/cgroup.max.depth").write_text("2" if in_force else "1")
    return {"sessions": folder, "limits": in_force, "before": become_nobody}


def wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def load(port: int, clients: int, may_go_on: Callable[[int], bool]) -> dict[str, float]:
    """Connect again and again from threads, as long as `may_go_on` permits with the number of connections of one."""
    took: list[float] = []
    wrong: list[int] = []

    def client() -> None:
        count = 0
        while may_go_on(count):
            begin = time.perf_counter()
            if ask(port) != b"ok\n":
                wrong.append(1)
            took.append(time.perf_counter() - begin)
            count += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    took.sort()
    return {
        "per_s": round(len(took) / seconds),
        "p50_ms": round(took[len(took) // 2] * 1e3, 2),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 2),
        "wrong": len(wrong),
    }


def until(end: float) -> Callable[[int], bool]:
    return lambda _count: time.monotonic() < end


def ask(port: int) -> bytes:
    data = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as connection:
        while part := connection.recv(100):
            data += part
    return data


def pss(pid: int) -> int:
    """Return the memory of a process in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    row: dict[str, object] = {"name": name}
    with serving(name, folder) as (port, pid):
        wait_for(port)
        row["pss_kb"] = pss(pid)
        for clients in options.clients.split(","):
            row[f"c{clients}"] = load(port, int(clients), until(time.monotonic() + options.seconds))
        if options.sessions:
            each = options.sessions // 16
            row["many"] = load(port, 16, lambda count: count < each)
            time.sleep(1)
        row["pss_after_kb"] = pss(pid)
    return row


def flood(folder: Path, count: int) -> dict[str, object]:
    """Return how long an address waits for its answer without and with a flood from another one, and what that costs.

    `over_ms` is from the end of the flood until there is no session and no descriptor more than before it.
    """
    port = free_port()
    with Daemon(folder, FLOODED.format(port=port)) as daemon:
        wait_for(port)
        quiet = [answer_time(("127.0.0.1", port)) for _ in range(10)]
        pid = daemon.wait_running("echo")
        wait_until(lambda: count_of(daemon) == 0, "the end of all sessions")
        fds, before, lines = len(os.listdir(f"/proc/{pid}/fd")), (cpu(pid), cpu(daemon.pid)), daemon.log().count("\n")
        usual = ["chrt", "--other", "0"]  # whatever we have ourselves
        flooder = subprocess.Popen([*usual, sys.executable, "-ISc", FLOOD, str(port), str(count)], stdin=-3)
        begin, took = time.monotonic(), []
        while flooder.poll() is None:
            took.append(answer_time(("127.0.0.1", port)))
            time.sleep(0.1)
        end = time.monotonic()
        used, used_by_spawnd = cpu(pid) - before[0], cpu(daemon.pid) - before[1]
        wait_until(lambda: count_of(daemon) == 0 and len(os.listdir(f"/proc/{pid}/fd")) == fds, "the end of the flood")
        return {
            "name": "flood",
            "quiet_ms": round(max(quiet) * 1e3, 1),
            "p50_ms": round(sorted(took)[len(took) // 2] * 1e3, 1),
            "max_ms": round(max(took) * 1e3, 1),
            "asked": len(took),
            "cpu_us_each": round(used / count * 1e6, 1),
            "spawnd_cpu_percent": round(100 * used_by_spawnd / (end - begin), 2),
            "over_ms": round((time.monotonic() - end) * 1e3),
            "lines": daemon.log().count("\n") - lines,
            "pss_kb": pss(pid),
        }


def kills(folder: Path) -> dict[str, object]:
    """Return what becomes of sessions while their acceptors and spawnd are killed; `back_ms` is until the next one."""
    port = free_port()
    wrong = {"cut": 0, "wrong_counts": 0, "over_limit": 0}
    took: dict[str, list[float]] = {"acceptor": [], "spawnd": []}
    with Daemon(folder, KILLED.format(port=port)) as daemon, ExitStack() as stack:
        wait_for(port)
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(SESSIONS)]
        wait_until(lambda: all(map(is_answered, clients)) and count_of(daemon) == SESSIONS, "all sessions")
        for number in range(25):
            victim = "spawnd" if number % 5 == 4 else "acceptor"
            took[victim].append(kill_one(daemon, victim))
            wrong["cut"] += sum(not is_answered(client) for client in clients)
            wrong["wrong_counts"] += count_of(daemon) != SESSIONS
            wrong["over_limit"] += is_let_in(port)
            clients.pop(0).close()  # the next acceptor sees the end of a session of another one
            wait_until(lambda: count_of(daemon) == SESSIONS - 1, "the end of a session")
            clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)))
            wrong["cut"] += not is_answered(clients[-1])
    back = {f"{victim}_back_ms": [round(each * 1e3) for each in sorted(all_of)] for victim, all_of in took.items()}
    return {"name": "kills", "kills": {victim: len(all_of) for victim, all_of in took.items()}, **wrong, **back}


def kill_one(daemon: Daemon, victim: str) -> float:
    """Kill the acceptor or spawnd, and return the seconds until the next one has counted the sessions."""
    before = daemon.wait_running("echo")
    begin = time.monotonic()
    if victim == "spawnd":
        daemon.lose()
        daemon.again()
    else:
        os.kill(before, signal.SIGKILL)
        daemon.wait_running("echo", other_than=before)
    wait_until(lambda: count_of(daemon) == SESSIONS, "the sessions to be counted")
    return time.monotonic() - begin


def count_of(daemon: Daemon) -> int:
    reply = call(daemon.socket, "Status", names=["echo"])
    return int(reply["parameters"]["services"][0]["sessions"] or 0)


def answer_time(address: tuple[str, int]) -> float:
    """Return the seconds until a program has answered."""
    begin = time.perf_counter()
    with socket.create_connection(address, 30) as client:
        client.send(b"x")
        if client.recv(1) != b"x":
            raise ConnectionError("no answer")
    return time.perf_counter() - begin


def cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--clients", default="1,16")
    parser.add_argument("--rounds", type=int, default=1, help="the servers take turns")
    parser.add_argument("--sessions", type=int, default=0)
    parser.add_argument("--flood", type=int, default=0)
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("names", nargs="*", default=["floor", "acceptor", "cgroups", "limits", "tcpserver", "xinetd"])
    options = parser.parse_args()
    for name, package in (("xinetd", "xinetd"), ("tcpserver", "ucspi-tcp")):
        if name in options.names and not options.kills and not shutil.which(name):
            parser.error(f"{name} is not there: apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="inetd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if options.kills:
            print(json.dumps(kills(folder)), flush=True)
        if options.flood:
            print(json.dumps(flood(folder, options.flood)), flush=True)
        if options.kills or options.flood:
            return
        (folder / "server.py").write_text(PYTHON)
        for program, source in (("ok", PROGRAM), ("floor", FLOOR)):
            (folder / f"{program}.c").write_text(source)
            command = ["cc", "-O2", "-static", "-o", str(folder / program), str(folder / f"{program}.c")]
            subprocess.run(command, check=True)
        for _ in range(options.rounds):
            for server in options.names:
                print(json.dumps(measure(server, folder, options)), flush=True)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin"
    main()
