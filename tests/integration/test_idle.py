"""Services with `idle_stop`: they sleep once nobody uses them, and lose no client."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.linux.glance import read_file
from tests.bench.sleep import measure_idle
from tests.daemon import BIN, Daemon, call, wait_until
from tests.integration.conftest import Start, new_folder, telling
from tests.integration.test_cgroups import subtree
from tests.integration.test_demand import ask, port, wait_asleep
from tests.unit.process.requirements import needs_root

__all__ = ["subtree"]
PATIENCE = 60.0
IDLE = 0.3

# Serves one client after the other: it answers with its pid, and then for each byte that the client sends.
SERVER = f"""#!{sys.executable} -IS
import os, socket
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.sendall(b"%d" % os.getpid())
    while client.recv(1):
        client.sendall(b"ok")
    client.close()
"""
ECHO = f"""#!{sys.executable} -IS
import os, socket
bound = socket.socket(fileno=3)
while True:
    data, sender = bound.recvfrom(100)
    bound.sendto(b"%d" % os.getpid(), sender)
"""
# Works in a child for as long as the file exists.
WORKER = f"""#!{sys.executable} -IS
import os, sys
if os.fork() == 0:
    while os.path.exists(sys.argv[1]):
        pass
    os._exit(0)
os.wait()
os.read(os.pipe()[0], 1)
"""
# Says whether it is busy, as the words of its clients tell.
SAYER = f"""#!{sys.executable} -IS
import os, socket
listener, said = socket.socket(fileno=3), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
said.connect(os.environ["NOTIFY_SOCKET"])
while True:
    client, _ = listener.accept()
    client.sendall(b"%d" % os.getpid())
    said.send(client.recv(100))
    client.close()
"""
PROGRAMS = {"server": SERVER, "echo": ECHO, "worker": WORKER, "sayer": SAYER}

DEFINITIONS = f"""
_DEFAULT = {{ status = "demand", idle_stop = {IDLE} }}
unix = {{ exec = "@/server", fd = {{ stream("@/unix") }} }}
packets = {{ exec = "@/server", fd = {{ seqpacket("@/packets") }} }}
tcp4 = {{ exec = "@/server", fd = {{ tcp("127.0.0.1", 0) }} }}
tcp6 = {{ exec = "@/server", fd = {{ tcp("*", 0) }} }}
udp4 = {{ exec = "@/echo", fd = {{ udp("127.0.0.1", 0) }} }}
dgram1 = {{ exec = "@/echo", fd = {{ dgram("@/dgram") }} }}
worker = {{ exec = "@/worker", arg = {{ "@/works" }}, fd = {{ tcp("127.0.0.1", 0) }} }}
sayer = {{ exec = "@/sayer", ready = "exec", fd = {{ tcp("127.0.0.1", 0) }} }}
stays = {{ exec = "@/server", idle_stop = false, fd = {{ tcp("127.0.0.1", 0) }} }}
"""


@pytest.fixture(scope="module")
def idle_of_all() -> Iterator[Daemon]:
    with new_folder() as folder:
        for name, text in PROGRAMS.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        with Daemon(folder, DEFINITIONS.replace("@", str(folder))) as daemon:
            yield daemon


@pytest.fixture
def idle(idle_of_all: Daemon) -> Iterator[Daemon]:
    with telling(idle_of_all) as daemon:
        yield daemon


def address_of(daemon: Daemon, name: str) -> str | tuple[str, int]:
    paths = {"unix": "unix", "packets": "packets", "dgram1": "dgram"}
    return str(daemon.folder / paths[name]) if name in paths else ("127.0.0.1", port(daemon, name))


def connected(daemon: Daemon, name: str) -> socket.socket:
    """A client that has got the pid of the process, and keeps its connection."""
    kind = socket.SOCK_SEQPACKET if name == "packets" else socket.SOCK_STREAM
    address = address_of(daemon, name)
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
    client.settimeout(PATIENCE)
    client.connect(address)
    assert int(client.recv(100)) == daemon.pid_of(name)
    return client


def row_of(daemon: Daemon, name: str) -> dict[str, object]:
    found: dict[str, object] = call(daemon.socket, "Status", names=[name])["parameters"]["services"][0]
    return found


def state_of(pid: int) -> str:
    """The letter of the state of a process."""
    return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0].decode()


@pytest.mark.parametrize("name", ["unix", "packets", "tcp4", "tcp6", "udp4", "dgram1"])
def test_one_that_nobody_uses_sleeps_and_wakes_again(idle: Daemon, name: str) -> None:
    kinds = {"packets": socket.SOCK_SEQPACKET, "udp4": socket.SOCK_DGRAM, "dgram1": socket.SOCK_DGRAM}
    kind = kinds.get(name, socket.SOCK_STREAM)
    wait_asleep(idle, name)
    address = address_of(idle, name)
    first = ask(address, kind)
    wait_asleep(idle, name)
    second = ask(address, kind)
    wait_asleep(idle, name)
    assert first != second
    assert f"{name}: stopping: idle for {IDLE} s" in idle.log()
    assert row_of(idle, name)["failures"] == 0


@pytest.mark.parametrize("name", ["unix", "packets", "tcp4", "tcp6"])
def test_a_connection_keeps_it_awake(idle: Daemon, name: str) -> None:
    wait_asleep(idle, name)
    with connected(idle, name) as client:
        pid = idle.pid_of(name)
        wait_until(lambda: row_of(idle, name)["busy"] == "1 connection", "a look")
        looks = {row_of(idle, name)["next_look_s"] for _ in range(3)}
        assert all(isinstance(left, float) and 0 <= left <= IDLE for left in looks)
        assert row_of(idle, name)["idle_s"] is None
        time.sleep(4 * IDLE)
        client.send(b"?")
        assert client.recv(2) == b"ok"
        assert idle.pid_of(name) == pid
        assert "busy: 1 connection" in idle.ctl("status", name).stdout
        assert "busy: 1 connection" in idle.ctl("list", name).stdout
        assert "busy: 1 connection" in idle.ctl("why", name).stdout
    wait_asleep(idle, name)


@needs_root
def test_a_client_in_another_network_namespace_keeps_it_awake(idle: Daemon) -> None:
    """The kernel lists its connection there."""
    wait_asleep(idle, "unix")
    text = (
        "import socket, sys; from supervisor.linux.namespaces import CLONE_NEWNET, unshare; unshare(CLONE_NEWNET); "
        "client = socket.socket(socket.AF_UNIX); client.connect(sys.argv[1]); client.recv(100); print(1, flush=True); "
        "sys.stdin.read(1); client.send(b'?'); print(client.recv(2))"
    )
    command = [sys.executable, "-P", "-c", text, str(idle.folder / "unix")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"1\n"
        pid = idle.pid_of("unix")
        wait_until(lambda: row_of(idle, "unix")["busy"] == "1 connection", "a look at the stopped service")
        assert state_of(pid or 0) == "S"
        out, _ = client.communicate(b"\n", PATIENCE)
        assert out == b"b'ok'\n"
        assert idle.pid_of("unix") == pid
    wait_asleep(idle, "unix")


def test_work_of_a_child_keeps_it_awake(idle: Daemon) -> None:
    wait_asleep(idle, "worker")
    works = idle.folder / "works"
    works.touch()
    assert idle.ctl("start", "worker").returncode == 0
    wait_until(lambda: str(row_of(idle, "worker")["busy"]).endswith("% CPU"), "a look")
    time.sleep(4 * IDLE)
    assert idle.state("worker") == "running"
    works.unlink()
    wait_asleep(idle, "worker")


def test_its_own_word_keeps_it_awake(idle: Daemon) -> None:
    wait_asleep(idle, "sayer")

    def tell(word: bytes) -> None:
        with connected(idle, "sayer") as client:
            client.send(word)

    tell(b"X_SPAWND_BUSY=1")
    wait_until(lambda: row_of(idle, "sayer")["busy"] == "it says so", "the message")
    assert row_of(idle, "sayer")["next_look_s"] is None
    time.sleep(4 * IDLE)
    assert idle.state("sayer") == "running"
    assert idle.ctl("reexec").returncode == 0
    assert row_of(idle, "sayer")["busy"] == "it says so"
    tell(b"X_SPAWND_BUSY=0")
    wait_asleep(idle, "sayer")
    assert idle.ctl("start", "sayer").returncode == 0
    assert row_of(idle, "sayer")["busy"] != "it says so"


def test_a_stopped_process_is_left_alone(idle: Daemon) -> None:
    """Somebody looks at it with a debugger."""
    wait_asleep(idle, "tcp4")
    pid = ask(address_of(idle, "tcp4"))
    wait_until(lambda: row_of(idle, "tcp4")["idle_s"] is not None, "the end of the connection")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: "stopped" in str(row_of(idle, "tcp4")["busy"]), "a look")
    time.sleep(4 * IDLE)
    assert state_of(pid) == "T"
    os.kill(pid, signal.SIGCONT)
    wait_asleep(idle, "tcp4")


def test_the_monitor_tells_of_idleness(idle: Daemon) -> None:
    wait_asleep(idle, "tcp4")
    command = [str(BIN / "spawnctl"), "--socket", str(idle.socket), "monitor", "--changes-only", "tcp4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        with connected(idle, "tcp4"):
            wait_until(lambda: row_of(idle, "tcp4")["busy"], "a look")
        wait_asleep(idle, "tcp4")
        monitor.send_signal(signal.SIGTERM)
        said = monitor.stdout.read()
    assert "busy: 1 connection" in said
    assert "idle for" in said


def test_one_without_the_key_stays(idle: Daemon) -> None:
    pid = ask(address_of(idle, "stays"))
    row = row_of(idle, "stays")
    assert (row["pid"], row["idle_s"], row["busy"], row["next_look_s"]) == (pid, None, "", None)


@pytest.fixture(params=["session", "cgroup"])
def settings(request: pytest.FixtureRequest) -> str:
    """Of a supervisor whose services are stopped by signals, or by the freezer of a cgroup; ask before `spawnd`."""
    if request.param == "session":
        return ""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a cgroup")
    return f'_SUPERVISOR = {{ cgroup = "{request.getfixturevalue("subtree")}" }}\n'


def test_orders_and_losses_at_any_moment_leave_nothing_stopped(
    settings: str, spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    path = program("server", SERVER)
    text = f'status = "demand", idle_stop = "20ms", idle_cpu = "100%", exec = "{path}"'
    services = (f's{n} = {{ {text}, fd = {{ stream("{folder}/s{n}") }} }}\n' for n in range(4))
    daemon = spawnd(settings + "".join(services))
    choice = random.Random(1)
    for number in range(12):
        names = [f"s{n}" for n in range(4)]
        for name in names:
            wait_until(lambda name=name: daemon.state(name) in ("asleep", "running"), "an end of a start")  # type: ignore[misc]
            ask(str(folder / name))
        time.sleep(choice.random() * 0.1)
        if number % 3 == 0:
            daemon.lose()
            daemon.again()
        elif number % 3 == 1:
            assert daemon.ctl("reexec").returncode == 0
        else:
            assert daemon.ctl("restart", *names).returncode == 0
    for name in names:
        wait_asleep(daemon, name)
        assert ask(str(folder / name))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_clients_at_random_moments_lose_nothing() -> None:
    """A short form of `tests/bench/sleep.py`."""
    found = measure_idle(cycles=60, services=8, rate=60, idle=0.05, patience=120)
    assert (found["refused"], found["reset"], found["unanswered"]) == (0, 0, 0)
    assert found["clients"] >= 40
    assert (found["failures"], found["descriptors_leaked"]) == (0, 0)


def test_a_changed_key_takes_effect_at_once(
    spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    path = program("server", SERVER)

    def text(idle_stop: str) -> str:
        return f's = {{ status = "demand", idle_stop = {idle_stop}, exec = "{path}", fd = {{ stream("{folder}/s") }} }}'

    daemon = spawnd(text("false"))
    wait_asleep(daemon, "s")
    pid = ask(str(folder / "s"))
    time.sleep(3 * IDLE)
    assert daemon.pid_of("s") == pid
    daemon.definitions.write_text(text(str(IDLE)))
    assert daemon.ctl("apply").returncode == 0
    wait_asleep(daemon, "s")


def test_several_processes_sleep_together(
    settings: str, spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    """Children that wait for clients as well are stopped and told to end like the first process."""
    path = program("forks", SERVER.replace("while True:\n    client, _", "os.fork()\nwhile True:\n    client, _"))
    text = f'status = "demand", idle_stop = {IDLE}, kill_mode = "group", exec = "{path}"'
    daemon = spawnd(f'{settings}s = {{ {text}, fd = {{ stream("{folder}/s") }} }}')
    wait_asleep(daemon, "s")
    with ExitStack() as stack:
        for _ in range(2):  # one for each process
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(folder / "s"))
            assert client.recv(100)
        wait_until(lambda: row_of(daemon, "s")["busy"] == "2 connections", "a look")
    wait_asleep(daemon, "s")
    assert ask(str(folder / "s"))


@needs_root
def test_a_cgroup_that_somebody_has_frozen_is_left_alone(
    subtree: Path, spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    path = program("server", SERVER)
    text = f'status = "demand", idle_stop = {IDLE}, exec = "{path}", fd = {{ stream("{folder}/s") }}'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\ns = {{ {text} }}')
    wait_asleep(daemon, "s")
    ask(str(folder / "s"))
    wait_until(lambda: row_of(daemon, "s")["idle_s"] is not None, "the end of the connection")
    freezer = subtree / "s" / "cgroup.freeze"
    freezer.write_text("1")
    wait_until(lambda: row_of(daemon, "s")["busy"] == "its cgroup is frozen", "a look")
    time.sleep(4 * IDLE)
    assert freezer.read_text() == "1\n"
    freezer.write_text("0")
    wait_asleep(daemon, "s")
    assert ask(str(folder / "s"))
