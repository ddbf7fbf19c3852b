"""One process for each connection: the acceptor of a real spawnd, and its sessions."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start, new_folder, telling
from tests.integration.test_demand import port

PATIENCE = 60.0

# Tells its client what it is, then returns each line until the client is gone.
SESSION = f"""#!{sys.executable} -IS
import json, os, resource, signal, socket, sys, threading
number = int(sys.argv[1])
connection = socket.socket(fileno=number)
told = {{
    "pid": os.getpid(), "uid": os.getuid(), "argv": sys.argv, "env": dict(os.environ),
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1], "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "same": number == 3 or os.fstat(0) == os.fstat(1), "cwd": os.getcwd(),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}}
if sys.argv[2:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2:] == ["polite"]:
    def part():
        signal.sigwait([signal.SIGTERM])
        connection.sendall(b"bye")
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=part, daemon=True).start()
connection.sendall(json.dumps(told).encode() + b"\\n")
while data := connection.recv(1000):
    connection.sendall(data)
"""

DEFINITIONS = """
_DEFAULT = { exec = "@/session", arg = { "0" }, accept = true, env = { A = "1" } }
tcp4 = { fd = { tcp("127.0.0.1", 0) }, limits = { nofile = 77 }, cwd = "/tmp" }
unix = { fd = { stream("@/unix") } }
packets = { fd = { seqpacket("@/packets") } }
third = { fd = { tcp("127.0.0.1", 0) }, arg = { "3" }, accept = { descriptor = 3 } }
two = { fd = { tcp("127.0.0.1", 0), stream("@/two") } }
few = { fd = { stream("@/few") }, accept = { max = 2, on_limit = "refuse" } }
full = { exec = "/bin/cat", arg = {}, fd = { stream("@/full") }, accept = { max = 50, on_limit = "refuse" } }
brief = { fd = { stream("@/brief") }, accept = { linger = 0 } }
stubborn = { fd = { stream("@/stubborn") }, arg = { "0", "stubborn" }, stop_timeout = "500ms" }
polite = { fd = { stream("@/polite") }, arg = { "0", "polite" }, healthy_after = "1h",
  backoff = { first = "1h", max = "1h" } }
missing = { exec = "@/nothing", fd = { stream("@/missing") } }
"""


class Client:
    """A client of a session, which has told what it is."""

    def __init__(self, address: str | tuple[str, int], kind: int = socket.SOCK_STREAM) -> None:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.socket = socket.socket(family, kind)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.told: dict[str, Any] = {}

    def hear(self) -> Client:
        """Wait until the session tells what it is."""
        data = b""
        while not data.endswith(b"\n"):
            part = self.socket.recv(65536)
            assert part, "the connection was closed"
            data += part
        self.told = json.loads(data)
        return self

    @property
    def pid(self) -> int:
        return int(self.told["pid"])

    def is_served(self) -> bool:
        try:
            self.socket.sendall(b"x")
            return self.socket.recv(10) == b"x"
        except ConnectionError:
            return False

    def is_cut(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return self.socket.recv(10) == b""
        except ConnectionError:
            return True

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def wait_asleep(daemon: Daemon) -> Daemon:
    wait_until(lambda: daemon.state("missing") == daemon.state("few") == "asleep", "all to be asleep")
    return daemon


def run(start: Start, folder: Any, settings: str = "", definitions: str = DEFINITIONS) -> Daemon:
    (folder / "session").write_text(SESSION)
    (folder / "session").chmod(0o755)
    return wait_asleep(start(settings + definitions))


@pytest.fixture(scope="module")
def accept_of_all() -> Iterator[Daemon]:
    with new_folder() as folder:
        (folder / "session").write_text(SESSION)
        (folder / "session").chmod(0o755)
        with Daemon(folder, DEFINITIONS.replace("@", str(folder))) as daemon:
            yield wait_asleep(daemon)


@pytest.fixture
def accepting(accept_of_all: Daemon) -> Iterator[Daemon]:
    with telling(accept_of_all) as daemon:
        yield daemon


def path(daemon: Daemon, name: str) -> str:
    return str(daemon.folder / name)


def status(daemon: Daemon, name: str) -> Any:
    return json.loads(daemon.ctl("status", name, "--json").stdout)[0]


def wait_empty(daemon: Daemon) -> None:
    """Wait for the end of sessions of earlier tests."""
    wait_until(lambda: not status(daemon, "few")["sessions"], "a service without sessions")


def test_a_client_of_tcp_has_a_process_of_its_own(accepting: Daemon) -> None:
    address = "127.0.0.1", port(accepting, "tcp4")
    with Client(address).hear() as one, Client(address).hear() as other:
        assert one.pid != other.pid
        assert accepting.pid_of("tcp4") not in (one.pid, other.pid, None)
        told = one.told
        host, number = one.socket.getsockname()
        assert told["fds"] == [0, 1, 2]
        assert told["same"]
        assert (told["uid"], told["cwd"], told["nofile"], told["blocked"]) == (65534, "/tmp", 77, [])
        env = told["env"]
        assert (env["PROTO"], env["REMOTE_ADDR"], env["REMOTE_PORT"]) == ("TCP", host, str(number))
        assert (env["LOCAL_ADDR"], env["LOCAL_PORT"], env["TCPREMOTEIP"]) == (host, str(address[1]), host)
        assert env["A"] == "1"
        assert "LISTEN_FDS" not in env
        assert one.is_served()
        assert other.is_served()


@pytest.mark.parametrize(("name", "kind"), [("unix", socket.SOCK_STREAM), ("packets", socket.SOCK_SEQPACKET)])
def test_a_client_of_a_unix_socket_has_a_process_of_its_own(accepting: Daemon, name: str, kind: int) -> None:
    with Client(path(accepting, name), kind).hear() as client:
        assert client.told["env"]["REMOTE_UID"] == str(os.getuid())
        assert client.told["env"]["REMOTE_PID"] == str(os.getpid())
        assert client.told["fds"] == [0, 1, 2]
        assert client.is_served()


def test_a_session_may_have_its_connection_as_descriptor_3(accepting: Daemon) -> None:
    with Client(("127.0.0.1", port(accepting, "third"))).hear() as client:
        env = client.told["env"]
        assert client.told["fds"] == [0, 1, 2, 3]
        assert (env["LISTEN_FDS"], env["LISTEN_PID"]) == ("1", str(client.pid))
        assert env["LISTEN_FDNAMES"] == "connection"
        assert client.is_served()


def test_a_service_has_several_sockets(accepting: Daemon) -> None:
    with Client(("127.0.0.1", port(accepting, "two"))).hear() as one, Client(path(accepting, "two")).hear() as other:
        assert one.told["env"]["PROTO"] == "TCP"
        assert other.told["env"]["PROTO"] == "UNIX"


def test_fifty_clients_are_served_at_a_time(accepting: Daemon) -> None:
    address = "127.0.0.1", port(accepting, "tcp4")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(50)]
        assert len({client.hear().pid for client in clients}) == 50
        assert all(client.is_served() for client in clients)
        # those of earlier tests may be about to end
        wait_until(lambda: "Sessions: 50, " in accepting.ctl("status", "tcp4").stdout, "50 sessions")
        found = status(accepting, "tcp4")
        assert (found["sessions"], found["accepted"] >= 50) == (50, True)


def test_clients_beyond_max_are_refused(accepting: Daemon) -> None:
    wait_empty(accepting)
    with Client(path(accepting, "few")).hear() as one, Client(path(accepting, "few")).hear() as other:
        with Client(path(accepting, "few")) as third:
            assert third.is_cut()
        assert one.is_served()
        assert other.is_served()


def test_an_idle_acceptor_ends_and_the_service_sleeps(accepting: Daemon) -> None:
    for _ in range(3):
        with Client(path(accepting, "brief")).hear() as client:
            assert client.is_served()
        wait_until(lambda: accepting.state("brief") == "asleep", "brief to be asleep")
        assert accepting.pid_of("brief") is None


def test_a_missing_program_closes_the_connection(accepting: Daemon) -> None:
    for _ in range(2):
        with Client(path(accepting, "missing")) as client:
            assert client.is_cut()
    assert accepting.state("missing") == "running"
    accepting.wait_log("No such file or directory")


def test_why_tells_that_clients_get_no_session(accepting: Daemon) -> None:
    with Client(path(accepting, "missing")) as client:
        assert client.is_cut()
    told = f"cannot exec '{accepting.folder}/nothing': No such file or directory (ENOENT)"
    for verb in (("why",), ("status",), ("list",)):
        wait_until(lambda verb=verb: told in accepting.ctl(*verb, "missing").stdout, f"{verb} to tell the cause")  # type: ignore[misc]
    assert f"To do: see {accepting.definitions}:" in accepting.ctl("why", "missing").stdout


def test_a_flood_leaves_a_few_lines_in_the_log(accepting: Daemon) -> None:
    wait_empty(accepting)
    before = len(accepting.log())
    with Client(path(accepting, "few")).hear(), Client(path(accepting, "few")).hear():
        refused = status(accepting, "few")["refused"].get("max", 0)
        for _ in range(500):
            for name in ("few", "missing"):
                with Client(path(accepting, name)):
                    pass
        wait_until(lambda: status(accepting, "few")["refused"].get("max", 0) >= refused + 500, "500 refusals")
        wait_until(lambda: status(accepting, "missing")["last_unserved"]["failures"] >= 500, "500 failures")
        assert accepting.log()[before:].count("\n") < 20
        with Client(path(accepting, "full")) as client:  # others are served
            assert client.is_served()


def test_status_tells_who_was_refused(accepting: Daemon) -> None:
    wait_empty(accepting)
    with Client(path(accepting, "few")).hear(), Client(path(accepting, "few")).hear():
        with Client(path(accepting, "few")) as third:
            assert third.is_cut()
    found = status(accepting, "few")
    assert found["refused"]["max"] > 0
    assert found["last_refusal"]["peer"] == f"uid={os.getuid()},pid={os.getpid()}"
    assert " by max; the last one uid=" in accepting.ctl("status", "few").stdout


def test_an_operator_sees_the_sessions_and_ends_one(accepting: Daemon) -> None:
    address = "127.0.0.1", port(accepting, "tcp4")
    with Client(address).hear() as one, Client(address).hear() as other:
        rows = json.loads(accepting.ctl("sessions", "--json", "tcp4").stdout)
        (row,) = [row for row in rows if row["pid"] == one.pid]
        host, number = one.socket.getsockname()
        assert (row["peer"], row["processes"]) == (f"{host}:{number}", 1)
        assert row["memory_bytes"] > 1 << 20
        assert any(line.split()[1:2] == [str(other.pid)] for line in accepting.ctl("sessions").stdout.splitlines())
        done = accepting.ctl("kill", "tcp4", row["peer"])
        assert done.stdout == f"tcp4: running: TERM sent to session {one.pid} of {row['peer']}\n"
        assert one.is_cut()
        assert other.is_served()
        again = "kill", "tcp4", str(one.pid), "KILL"
        wait_until(lambda: accepting.ctl(*again).returncode == 1, "the session to be gone")
    assert f"kill session '{row['peer']}' by TERM of tcp4: asked for by" in accepting.log()


def test_stop_ends_all_sessions(accepting: Daemon) -> None:
    for name in ("unix", "stubborn"):
        with Client(path(accepting, name)).hear() as one, Client(path(accepting, name)).hear() as other:
            accepting.ctl("stop", name)
            assert one.is_cut()
            assert other.is_cut()
            assert accepting.state(name) == "stopped"
        accepting.ctl("start", name)
        with Client(path(accepting, name)).hear() as client:
            assert client.is_served()


def test_sessions_outlive_their_acceptor(accepting: Daemon) -> None:
    wait_empty(accepting)
    with Client(path(accepting, "few")).hear() as one, Client(path(accepting, "few")).hear() as other:
        before = accepting.wait_running("few")
        os.kill(before, signal.SIGKILL)
        after = accepting.wait_running("few", other_than=before)
        accepting.ctl("restart", "few")
        accepting.wait_running("few", other_than=after)
        assert one.is_served()
        assert other.is_served()
        with Client(path(accepting, "few")) as third:  # which counts them
            assert third.is_cut()
        accepting.ctl("stop", "few")
        assert one.is_cut()
        assert other.is_cut()
    accepting.ctl("start", "few")


def test_a_start_during_a_stop_waits_for_the_end_of_the_sessions(accepting: Daemon) -> None:
    with Client(path(accepting, "stubborn")).hear() as client:
        accepting.ctl("stop", "--no-wait", "stubborn")
        accepting.wait_state("stubborn", "stopping")
        assert accepting.ctl("start", "stubborn").returncode == 0
        assert client.is_cut()
        assert accepting.state("stubborn") == "running"


def test_a_restart_may_end_the_sessions(accepting: Daemon) -> None:
    for name in ("unix", "stubborn"):
        with Client(path(accepting, name)).hear() as one:
            before = accepting.wait_running(name)
            accepting.ctl("restart", name)
            assert one.is_served()
            assert accepting.ctl("restart", "--sessions", name).returncode == 0
            assert one.is_cut()
            accepting.wait_running(name, other_than=before)
        with Client(path(accepting, name)).hear() as one:
            assert accepting.ctl("sleep", name).stdout == f"{name}: asleep\n"
            assert one.is_served()
            accepting.ctl("restart", "--sessions", name)
            assert one.is_cut()
            wait_until(lambda name=name: accepting.state(name) == "asleep", "the service to sleep")  # type: ignore[misc]
