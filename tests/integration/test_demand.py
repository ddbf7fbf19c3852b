"""Services on demand: the kernel keeps the clients, and the first one starts the service."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import BIN, Daemon, call, wait_until
from tests.integration.conftest import Start, new_folder, telling

PATIENCE = 60.0

# Answers each client with its pid, and ends with success after `arg 1` clients.
COUNTED = f"""#!{sys.executable} -IS
import os, socket, sys
listener = socket.socket(fileno=3)
for _ in range(int(sys.argv[1])):
    client, _ = listener.accept()
    client.sendall(b"%d" % os.getpid())
    client.close()
"""
# The same for datagrams.
ECHO = f"""#!{sys.executable} -IS
import os, socket, sys
bound = socket.socket(fileno=3)
for _ in range(int(sys.argv[1])):
    data, sender = bound.recvfrom(100)
    bound.sendto(b"%d" % os.getpid(), sender)
"""
# Fails with a datagram that it has not read if that is bad, and answers others.
PICKY = f"""#!{sys.executable} -IS
import socket, sys
bound = socket.socket(fileno=3)
if bound.recv(100, socket.MSG_PEEK) == b"bad":
    sys.exit(1)
data, sender = bound.recvfrom(100)
bound.sendto(data, sender)
"""
# Serves a client of whichever socket has one, who may be gone, and ends with success.
TOLERANT = f"""#!{sys.executable} -IS
import contextlib, os, select, socket
for fd in select.select([3, 4], [], [])[0][:1]:
    with contextlib.suppress(OSError), socket.socket(fileno=fd).accept()[0] as client:
        client.sendall(b"%d" % os.getpid())
"""
# Serves nobody, and ends with success.
LAZY = "#!/bin/sh\nexit 0\n"
READER = f"""#!{sys.executable} -IS
import os, sys
with open(sys.argv[1], "a") as out:
    out.write(os.read(3, 100).decode())
"""

DEFINITIONS = """
_DEFAULT = { status = "demand" }
unix = { exec = "@/counted", arg = { "1" }, fd = { stream("@/unix") } }
packets = { exec = "@/counted", arg = { "1" }, fd = { seqpacket("@/packets") } }
tcp4 = { exec = "@/counted", arg = { "1" }, fd = { tcp("127.0.0.1", 0) } }
two = { exec = "@/counted", arg = { "2" }, fd = { tcp("127.0.0.1", 0) } }
udp4 = { exec = "@/echo", arg = { "1" }, fd = { udp("127.0.0.1", 0) } }
dgram1 = { exec = "@/echo", arg = { "1" }, fd = { dgram("@/dgram") } }
fifo = { exec = "@/reader", arg = { "@/out/read" }, fd = { file("@/fifo", "r+") } }
local quick = { first = "10ms", factor = 1 }
picky_udp = { exec = "@/picky", fd = { udp("127.0.0.1", 0) }, flush = true, backoff = quick }
picky_dgram = { exec = "@/picky", fd = { dgram("@/picky_dgram") }, flush = true, backoff = quick }
lazy = { exec = "@/lazy", fd = { tcp("127.0.0.1", 0) } }
lazy_udp = { exec = "@/lazy", fd = { udp("127.0.0.1", 0) } }
lazy_unix = { exec = "@/lazy", fd = { stream("@/lazy_unix") } }
needy = { exec = "@/counted", arg = { "1" }, fd = { stream("@/needy") }, depends = { "needed" } }
needed = { status = "stop", exec = "/bin/sleep", arg = { "100000" } }
lame = { exec = "@/counted", arg = { "1" }, fd = { stream("@/lame") }, depends = { "broken" } }
broken = { status = "stop", exec = "/bin/false", restart = "never", ready = "notify" }
resting = { exec = "@/counted", arg = { "1000000" }, fd = { stream("@/resting") } }
ordinary = { status = "start", exec = "/bin/sleep", arg = { "100000" } }
"""


@pytest.fixture(scope="module")
def demand_of_all() -> Iterator[Daemon]:
    with new_folder() as folder:
        for name, text in (("counted", COUNTED), ("echo", ECHO), ("lazy", LAZY), ("picky", PICKY), ("reader", READER)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        os.mkfifo(folder / "fifo", 0o666)
        with Daemon(folder, DEFINITIONS.replace("@", str(folder))) as daemon:
            yield daemon


@pytest.fixture
def demand(demand_of_all: Daemon) -> Iterator[Daemon]:
    with telling(demand_of_all) as daemon:
        yield daemon


def port(daemon: Daemon, name: str, fd: int = 3) -> int:
    """The port that the kernel has chosen for a descriptor, read from `spawnctl fds`."""
    line = next(line for line in daemon.ctl("fds", name).stdout.splitlines() if line.split()[0] == str(fd))
    return int(line.rpartition(":")[2].split()[0])


def ask(address: str | tuple[str, int], kind: int = socket.SOCK_STREAM) -> int:
    """The pid of the process that answers a new client."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family, kind) as client:
        client.settimeout(PATIENCE)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            client.bind("")  # an address of the kernel's choice, for the answer
        client.connect(address)
        if kind == socket.SOCK_DGRAM:
            client.send(b"?")
        return int(client.recv(100))


def wait_asleep(daemon: Daemon, name: str) -> None:
    wait_until(lambda: daemon.state(name) == "asleep", f"{name} to be asleep")


@pytest.mark.parametrize("name", ["unix", "packets", "tcp4", "udp4", "dgram1"])
def test_each_client_starts_the_service_which_sleeps_again(demand: Daemon, name: str) -> None:
    wait_asleep(demand, name)
    assert demand.pid_of(name) is None
    kinds = {"packets": socket.SOCK_SEQPACKET, "udp4": socket.SOCK_DGRAM, "dgram1": socket.SOCK_DGRAM}
    paths = {"unix": "unix", "packets": "packets", "dgram1": "dgram"}
    address: str | tuple[str, int] = ("127.0.0.1", port(demand, name))
    if name in paths:
        address = str(demand.folder / paths[name])
    pids = [ask(address, kinds.get(name, socket.SOCK_STREAM)) for _ in range(3)]
    assert len(set(pids)) == 3
    wait_asleep(demand, name)
    row = demand.services()[name]
    assert (row["reason"], row["restarts"]) == ("asleep until a client comes", 0)


def test_a_service_with_its_socket_on_descriptor_0(
    spawnd: Start, program: Callable[[str, str], str]
) -> None:
    path = program("echo0", ECHO.replace("fileno=3", "fileno=0"))
    daemon = spawnd(f's = {{ status = "demand", exec = "{path}", arg = {{ "1" }}, stdin = udp("127.0.0.1", 0) }}')
    wait_asleep(daemon, "s")
    address = ("127.0.0.1", port(daemon, "s", 0))
    assert ask(address, socket.SOCK_DGRAM) != ask(address, socket.SOCK_DGRAM)
    wait_asleep(daemon, "s")


def test_clients_that_come_together_are_served_one_after_the_other(demand: Daemon) -> None:
    wait_asleep(demand, "two")
    address = ("127.0.0.1", port(demand, "two"))
    clients = [socket.create_connection(address, PATIENCE) for _ in range(6)]
    pids = {int(client.recv(100)) for client in clients}
    for client in clients:
        client.close()
    assert len(pids) == 3
    wait_asleep(demand, "two")


def test_a_writer_to_a_fifo_starts_the_service(demand: Daemon) -> None:
    wait_asleep(demand, "fifo")
    read = demand.folder / "out" / "read"
    read.parent.mkdir(exist_ok=True)
    read.parent.chmod(0o777)
    for text in ("one ", "two "):
        (demand.folder / "fifo").write_text(text)
        wait_until(partial(ends_with, read, text), f"{text!r} to be read")
        wait_asleep(demand, "fifo")
    assert read.read_text() == "one two "


def ends_with(path: Path, text: str) -> bool:
    return path.exists() and path.read_text().endswith(text)


def test_why_says_what_starts_it(demand: Daemon) -> None:
    wait_asleep(demand, "unix")
    said = demand.ctl("why", "unix").stdout
    assert "unix is asleep: it starts with the first client of" in said
    assert f"stream {demand.folder}/unix" in "".join(said.split("\n")).replace("  ", "")


@pytest.mark.parametrize("name", ["lazy", "lazy_udp", "lazy_unix"])
def test_a_service_that_leaves_its_client_waiting_fails(demand: Daemon, name: str) -> None:
    wait_asleep(demand, name)
    family = socket.AF_UNIX if name == "lazy_unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if name == "lazy_udp" else socket.SOCK_STREAM) as client:
        client.connect(str(demand.folder / name) if name == "lazy_unix" else ("127.0.0.1", port(demand, name)))
        if name == "lazy_udp":
            client.send(b"?")
        wait_until(lambda: failures(demand, name) >= 2, "two failures")
    assert "has not served the client" in demand.log()
    assert ask_to_be_let_in(demand, name)  # the sockets stay open whatever clients do
    assert demand.ctl("stop", name).returncode == 0  # drops who waits
    assert demand.ctl("sleep", name).returncode == 0
    wait_asleep(demand, name)


@pytest.mark.parametrize("name", ["picky_udp", "picky_dgram"])
def test_a_datagram_with_which_each_run_fails_is_dropped(demand: Daemon, name: str) -> None:
    wait_asleep(demand, name)
    is_udp = name == "picky_udp"
    with socket.socket(socket.AF_INET if is_udp else socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.bind(("127.0.0.1", 0) if is_udp else "")
        client.connect(("127.0.0.1", port(demand, name)) if is_udp else str(demand.folder / name))
        for data in (b"good", b"bad", b"first", b"bad", b"bad", b"second"):
            client.send(data)
        assert [client.recv(100) for _ in range(3)] == [b"good", b"first", b"second"]
    wait_asleep(demand, name)
    row = details(demand, name)
    assert (row["flushed"], row["restarts"]) == (3, 9)
    assert "Flushed: 3 datagrams" in demand.ctl("status", name).stdout
    assert demand.log().count(f"{name}: dropped a datagram at ") == 3
    assert demand.ctl("stop", name).returncode == 0  # a start from rest counts anew
    assert demand.ctl("sleep", name).returncode == 0
    wait_asleep(demand, name)
    assert details(demand, name)["flushed"] == 0


def details(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = call(daemon.socket, "Status", names=[name])["parameters"]["services"][0]
    return found


def failures(daemon: Daemon, name: str) -> int:
    found: int = details(daemon, name)["failures"]
    return found


def ask_to_be_let_in(daemon: Daemon, name: str) -> bool:
    if name == "lazy_udp":
        return bool(port(daemon, name))
    address = str(daemon.folder / name) if name == "lazy_unix" else ("127.0.0.1", port(daemon, name))
    with socket.socket(socket.AF_UNIX if name == "lazy_unix" else socket.AF_INET) as client:
        client.connect(address)
        return True


def test_a_client_starts_what_the_service_needs(demand: Daemon) -> None:
    wait_asleep(demand, "needy")
    assert demand.state("needed") == "stopped"
    assert ask(str(demand.folder / "needy"))
    demand.wait_running("needed")
    wait_asleep(demand, "needy")
    assert ask(str(demand.folder / "needy"))


def test_a_start_that_fails_counts_once_and_is_the_cause(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(
        's = { status = "demand", exec = "/missing/program", fd = { stream("@/sock") }, '
        'backoff = { first = "50ms", max = "50ms" } }'
    )
    wait_asleep(daemon, "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "sock"))
        wait_until(lambda: failures(daemon, "s") >= 4, "four failures")
    assert "has not served" not in daemon.log()


def test_why_gives_a_failed_dependency_as_the_cause(demand: Daemon) -> None:
    wait_asleep(demand, "lame")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(demand.folder / "lame"))
        wait_until(lambda: demand.state("lame") == "waiting" and demand.state("broken") == "failed", "the failure")
        said = " ".join(demand.ctl("why", "lame").stdout.split())
        assert "needs broken, which" in said
        assert "exited with status 1" in said
    assert demand.ctl("stop", "lame", "broken").returncode == 0
    assert demand.ctl("sleep", "lame").returncode == 0
    wait_asleep(demand, "lame")


def test_orders(demand: Daemon) -> None:
    name, path = "resting", str(demand.folder / "resting")
    wait_asleep(demand, name)
    assert "its next process is a new one" in demand.ctl("restart", name).stdout
    assert demand.state(name) == "asleep"
    assert demand.ctl("start", name).returncode == 0
    first = demand.wait_running(name)
    assert ask(path) == first
    assert demand.ctl("sleep", name).returncode == 0
    assert (demand.state(name), demand.pid_of(name)) == ("asleep", None)
    second = ask(path)
    assert second != first
    assert demand.ctl("restart", name).returncode == 0
    assert demand.wait_running(name, other_than=second)
    assert demand.ctl("sleep", name).returncode == 0
    assert demand.ctl("stop", name).returncode == 0
    assert not os.path.exists(path)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
        client.connect(path)
    assert demand.ctl("sleep", name).returncode == 0
    assert ask(path)
    assert demand.ctl("sleep", name).returncode == 0
    refused = demand.ctl("sleep", "ordinary")
    assert refused.returncode == 1
    assert "no client could wake it" in refused.stdout + refused.stderr


@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_a_restart_binds_anew_what_no_client_can_reach(demand: Daemon, change: str) -> None:
    """The processes of a service that sleeps look at no path, so nobody else would."""
    name, path = "unix", demand.folder / "unix"
    assert demand.ctl("sleep", name).returncode == 0
    if change == "removed":
        path.unlink()
    else:
        path.rename(demand.folder / "elsewhere")
    restarted = demand.ctl("restart", name)
    assert restarted.returncode == 0
    assert demand.state(name) == "asleep"
    assert ask(str(path))  # at once: the order is done when the socket is there
    wait_asleep(demand, name)


def test_a_restart_that_cannot_bind_a_socket_says_so(demand: Daemon) -> None:
    name, path = "packets", demand.folder / "packets"
    wait_asleep(demand, name)
    path.unlink()
    path.mkdir()
    try:
        failed = demand.ctl("restart", name)
        assert failed.returncode == 1
        assert f"seqpacket '{path}' was taken and stays as it was" in failed.stderr
    finally:
        path.rmdir()
    assert demand.ctl("restart", name).returncode == 0
    assert ask(str(path), socket.SOCK_SEQPACKET)


def test_the_log_says_that_a_service_sleeps_once_its_sockets_are_open(spawnd: Start, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        daemon = spawnd(f'''s = {{ status = "demand", exec = "/bin/sleep", arg = {{ "100000" }},
            fd = {{ tcp("127.0.0.1", {number}) }}, backoff = {{ first = "50ms", factor = 1 }} }}''')
        wait_until(lambda: failures(daemon, "s") > 0, "a failure to bind")
        assert "s: asleep" not in daemon.log()
    wait_asleep(daemon, "s")


def test_what_a_process_has_said_of_itself_ends_with_it(
    spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    said = f"""#!{sys.executable} -IS
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ["NOTIFY_SOCKET"])
    notify.send(b"READY=1\\nSTATUS=here I am")
client, _ = socket.socket(fileno=3).accept()
client.recv(1)
"""
    daemon = spawnd(
        f's = {{ status = "demand", ready = "notify", exec = "{program("speaker", said)}", fd = {{ stream("@/s") }} }}'
    )
    wait_asleep(daemon, "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "s"))
        wait_until(lambda: details(daemon, "s")["status_text"] == "here I am", "its status")
    wait_asleep(daemon, "s")
    assert details(daemon, "s")["status_text"] == ""


def test_an_order_to_sleep_ends_a_rival(spawnd: Start, folder: Path, program: Callable[[str, str], str]) -> None:
    path = program("counted", COUNTED)
    text = f'exec = "{path}", arg = {{ "100" }}'
    daemon = spawnd(
        f'one = {{ status = "demand", {text}, fd = {{ stream("{folder}/one") }} }}\n'
        f'two = {{ status = "stop", {text}, fd = {{ stream("{folder}/two") }}, conflicts = {{ "one" }} }}'
    )
    wait_asleep(daemon, "one")
    assert daemon.ctl("start", "two").returncode == 0
    assert daemon.state("one") == "stopped"
    assert daemon.ctl("sleep", "one").returncode == 0
    assert (daemon.state("one"), daemon.state("two")) == ("asleep", "stopped")
    assert ask(str(folder / "one"))


def test_clients_that_have_gone_count_as_no_failure(
    spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    path = program("tolerant", TOLERANT)
    daemon = spawnd(f's = {{ status = "demand", exec = "{path}", fd = {{ tcp("127.0.0.1", 0), stream("@/sock") }} }}')
    wait_asleep(daemon, "s")
    address = ("127.0.0.1", port(daemon, "s"))
    daemon.signal(signal.SIGSTOP)
    for _ in range(5):
        with socket.create_connection(address) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "sock"))
    with socket.create_connection(address, PATIENCE) as last:
        daemon.signal(signal.SIGCONT)
        assert last.recv(100)
    wait_asleep(daemon, "s")
    assert "has not served" not in daemon.log()


def test_sleep_outlives_an_exec_and_a_loss(spawnd: Start, folder: Path, program: Callable[[str, str], str]) -> None:
    path = program("counted", COUNTED)
    fds = 'fd = { stream("@/sock"), tcp("127.0.0.1", 0) }'
    daemon = spawnd(f's = {{ status = "demand", exec = "{path}", arg = {{ "1" }}, {fds} }}')
    address = str(folder / "sock")
    wait_asleep(daemon, "s")
    assert daemon.ctl("reexec").returncode == 0
    wait_asleep(daemon, "s")
    first = ask(address)
    wait_asleep(daemon, "s")
    daemon.lose()
    daemon.again()
    wait_asleep(daemon, "s")
    assert ask(address) != first


def test_a_client_that_comes_over_an_exec_is_served(
    spawnd: Start, folder: Path, program: Callable[[str, str], str]
) -> None:
    path = program("counted", COUNTED)
    daemon = spawnd(f's = {{ status = "demand", exec = "{path}", arg = {{ "1" }}, fd = {{ stream("@/sock") }} }}')
    wait_asleep(daemon, "s")
    running = subprocess.Popen([str(BIN / "spawnctl"), "--socket", str(daemon.socket), "reexec"])
    pids = [ask(str(folder / "sock")) for _ in range(20)]
    assert running.wait(PATIENCE) == 0
    assert len(set(pids)) == 20


def test_changes(spawnd: Start, folder: Path, program: Callable[[str, str], str]) -> None:
    path = program("counted", COUNTED)

    def text(status: str, more: str = "", sock: str = "sock") -> str:
        fds = f'fd = {{ stream("{folder}/{sock}") }}'
        return f's = {{ status = "{status}", exec = "{path}", arg = {{ "100" }}, {fds}{more} }}'

    daemon = spawnd(text("stop"))

    def apply(*definition: str) -> str:
        daemon.definitions.write_text(text(*definition))
        plan = daemon.ctl("plan").stdout
        assert daemon.ctl("apply").returncode == 0
        return plan

    assert daemon.state("s") == "stopped"
    assert 'its status is "demand"' in apply("demand")
    wait_asleep(daemon, "s")
    assert "takes effect at once: cwd changed" in apply("demand", ', cwd = "/tmp"')
    assert daemon.state("s") == "asleep"
    apply("demand", "", "other")
    wait_asleep(daemon, "s")
    assert not (folder / "sock").exists()
    pid = ask(str(folder / "other"))
    assert os.path.realpath(f"/proc/{pid}/cwd") == "/"
    apply("start", "", "other")
    assert daemon.pid_of("s") == pid
    daemon.ctl("sleep", "s")
    apply("demand", "", "other")
    apply("start", "", "other")
    wait_until(lambda: daemon.state("s") == "running", "the start")
    apply("demand", "", "other")
    assert daemon.state("s") == "running"
    os.kill(daemon.pid_of("s") or 0, signal.SIGKILL)
    wait_asleep(daemon, "s")
    apply("stop", "", "other")
    assert daemon.state("s") == "stopped"
    assert not (folder / "other").exists()
