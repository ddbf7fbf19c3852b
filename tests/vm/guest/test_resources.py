"""The limits of a service as the kernel enforces them, which takes the controllers of cgroup2."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.vm.guest.installed import PATIENCE

pytestmark = pytest.mark.apart

EAT = "import time; eaten = [bytearray(1 << 20) for _ in range(1000)]; time.sleep(1000)"
FORK = """
import os, time
for count in range(100):
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError as error:
        open("@/out/forked", "w").write(f"{count} {error.errno}")
        time.sleep(1000)
"""
SERVE = """
import socket
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.sendall(b"x")
    client.close()
"""


@pytest.fixture
def subtree() -> Iterator[Path]:
    """A cgroup of the check's own; a spawnd that uses it has to end before."""
    path = Path(f"/sys/fs/cgroup/spawnd-check-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        (path / "cgroup.kill").write_text("1")
        wait_until(lambda: "populated 0" in (path / "cgroup.events").read_text(), "an empty cgroup", PATIENCE)
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "out").mkdir()
        (path / "out").chmod(0o777)
        yield path


def spawnd(folder: Path, subtree: Path, definitions: str) -> Daemon:
    settings = f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'
    return Daemon(folder, settings + definitions.replace("@", str(folder)))


def python(program: str) -> str:
    return f'exec = "{sys.executable}", arg = {{ "-ISc", [[{program}]] }}'


def status(daemon: Daemon, name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = json.loads(daemon.ctl("status", "--json", name).stdout)
    return rows[0]


def test_limits_are_in_force(subtree: Path, folder: Path) -> None:
    limits = (
        'memory_max = "64m", memory_high = "48m", memory_swap_max = 0,'
        ' cpu_weight = 50, cpu_max = "50%", pids_max = 7, io_weight = 200'
    )
    with spawnd(folder, subtree, f'limited = {{ exec = "/bin/sleep", arg = {{ "1000" }}, {limits} }}') as daemon:
        daemon.wait_running("limited")
        files = ("memory.max", "memory.high", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max", "io.weight")
        found = {name: (subtree / "limited" / name).read_text().strip() for name in files}
        assert found == {
            "memory.max": str(64 << 20),
            "memory.high": str(48 << 20),
            "memory.swap.max": "0",
            "cpu.weight": "50",
            "cpu.max": "50000 100000",
            "pids.max": "7",
            "io.weight": "default 200",
        }
        assert daemon.services()["limited"]["memory_bytes"] > 0
        assert "needs the" not in daemon.log()


def test_a_kill_for_lack_of_memory_is_named(subtree: Path, folder: Path) -> None:
    definition = f'eater = {{ {python(EAT)}, memory_max = "48m", memory_swap_max = 0, restart = "never" }}'
    with spawnd(folder, subtree, definition) as daemon:
        wait_until(lambda: status(daemon, "eater")["state"] == "failed", "the end of eater", PATIENCE)
        assert status(daemon, "eater")["last_exit"] == "killed by KILL (out of memory)"


def test_processes_are_counted(subtree: Path, folder: Path) -> None:
    with spawnd(folder, subtree, f"forker = {{ {python(FORK)}, pids_max = 5 }}") as daemon:
        daemon.wait_running("forker")
        forked = folder / "out" / "forked"
        wait_until(forked.exists, "a fork that fails", PATIENCE)
        assert wait_until(forked.read_text, "what it says", PATIENCE) == f"4 {errno.EAGAIN}"


def is_served(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        return client.recv(1) == b"x"
    except ConnectionError:
        return False


def connect(folder: Path, name: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(folder / name))
    return client


def is_one_served(folder: Path, name: str) -> bool:
    with connect(folder, name) as client:
        return is_served(client)


@contextmanager
def load(folder: Path, name: str) -> Iterator[list[bool]]:
    """With clients one after the other; yields which of them have been served."""
    served: list[bool] = []
    ended = threading.Event()

    def come() -> None:
        while not ended.is_set():
            served.append(is_one_served(folder, name))

    thread = threading.Thread(target=come)
    thread.start()
    try:
        yield served
    finally:
        ended.set()
        thread.join()


ECHO = 'echo = { exec = "/bin/cat", fd = { stream("@/echo") }, accept = true, pids_max = MOST }\n'


def test_clients_beyond_the_processes_of_an_acceptor_are_closed(subtree: Path, folder: Path) -> None:
    with spawnd(folder, subtree, ECHO.replace("MOST", "4")) as daemon, ExitStack() as stack:
        daemon.wait_state("echo", "asleep", PATIENCE)
        clients = [stack.enter_context(connect(folder, "echo")) for _ in range(3)]
        assert all(map(is_served, clients))
        acceptor = daemon.wait_running("echo")
        with load(folder, "echo") as served:
            wait_until(lambda: len(served) >= 50, "clients beyond pids_max", PATIENCE)
        assert not any(served)
        assert all(map(is_served, clients))
        why = daemon.ctl("why", "echo").stdout
        assert "its last client got no session" in why
        assert "Resource temporarily unavailable" in why
        assert daemon.ctl("logs", "echo").stdout.count("cannot start a session") == 1
        clients.pop().close()
        wait_until(lambda: is_one_served(folder, "echo"), "a client that is served again", PATIENCE)
        assert "its last client got no session" not in daemon.ctl("why", "echo").stdout
        assert daemon.wait_running("echo") == acceptor


def test_a_service_sleeps_in_its_cgroup_beside_a_busy_acceptor(subtree: Path, folder: Path) -> None:
    keys = f'status = "demand", idle_stop = "300ms", fd = {{ stream("@/web") }}, {python(SERVE)}'
    with spawnd(folder, subtree, ECHO.replace("MOST", "64") + f"web = {{ {keys} }}") as daemon:
        daemon.wait_state("echo", "asleep", PATIENCE)
        with load(folder, "echo") as served:
            sleeps_again_and_again(daemon, folder)
            wait_until(lambda: len(served) >= 50, "clients of the acceptor", PATIENCE)
        assert all(served)
        assert status(daemon, "web")["starts"] == 5
        assert not (subtree / "web" / "cgroup.procs").read_text()
        assert "frozen 0" in (subtree / "web" / "cgroup.events").read_text()


def sleeps_again_and_again(daemon: Daemon, folder: Path) -> None:
    for _ in range(5):
        daemon.wait_state("web", "asleep", PATIENCE)
        with connect(folder, "web") as client:
            assert client.recv(1) == b"x"
    daemon.wait_state("web", "asleep", PATIENCE)


# Forks as long as it may, or takes memory, as its client says.
SESSION = """
import os, socket, time
client = socket.socket(fileno=0)
client.sendall(b"here")
while word := client.recv(100):
    eaten = [bytearray(1 << 20) for _ in range(1000 if word == b"eat" else 0)]
    for count in range(100):
        try:
            if os.fork() == 0:
                time.sleep(1000)
        except OSError as error:
            client.sendall(b"%d %d" % (count, error.errno))
            break
"""


def client_of(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(folder / "socket"))
    assert client.recv(10) == b"here"
    return client


def test_limits_are_those_of_each_session(subtree: Path, folder: Path) -> None:
    definition = (
        f'each = {{ {python(SESSION)}, fd = {{ stream("@/socket") }}, accept = {{ session_cgroup = true }},'
        ' memory_max = "48m", memory_swap_max = 0, pids_max = 5 }'
    )
    sessions = subtree / "each" / "sessions"
    with spawnd(folder, subtree, definition) as daemon:
        daemon.wait_state("each", "asleep", PATIENCE)
        with client_of(folder) as one, client_of(folder) as other, client_of(folder) as third:
            assert (sessions / "1" / "memory.max").read_text().strip() == str(48 << 20)
            for client in (one, other):
                client.sendall(b"fork")
                assert client.recv(100).decode() == f"4 {errno.EAGAIN}"
            assert len((sessions / "2" / "session" / "cgroup.procs").read_text().split()) == 5
            third.sendall(b"eat")
            assert third.recv(100) == b"", "the kernel has killed it alone"
            wait_until(lambda: status(daemon, "each")["sessions"] == 2, "its end", PATIENCE)
            one.close()
            left = [sessions / "2"]
            wait_until(lambda: list(sessions.glob("[0-9]*")) == left, "the end of the first one", PATIENCE)
            other.sendall(b"fork")
            assert other.recv(100).decode() == f"0 {errno.EAGAIN}"
        assert "needs the" not in daemon.log()
