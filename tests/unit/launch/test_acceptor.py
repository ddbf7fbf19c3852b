"""The acceptor starts a session for each client, with the connection where the plan puts it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.launch.operations import HAS_ARGV0, Kind, operation
from supervisor.process.failure import read_failure
from tests.unit.launch.accepting import Acceptor, read_to_end, session_plan, tcp, wait_until
from tests.unit.launch.filters import refusing


@pytest.fixture
def acceptor() -> Iterator[Acceptor]:
    with Acceptor() as acceptor:
        yield acceptor


def test_each_client_gets_a_process(acceptor: Acceptor) -> None:
    assert [acceptor.ask() for _ in range(20)] == [b"ok\n"] * 20
    wait_until(lambda: acceptor.counters().ended == 20)
    found = acceptor.counters()
    assert (found.accepted, found.started, found.sessions, found.refusal, found.trouble) == (20, 20, 0, None, None)
    assert acceptor.sessions() == []


def test_a_session_is_in_the_table(acceptor: Acceptor) -> None:
    acceptor.stop()
    acceptor.plan = session_plan(("/bin/cat",))
    acceptor.start()
    with acceptor.connect() as client:
        client.send(b"1")
        assert client.recv(1) == b"1"
        (session,) = acceptor.sessions()
        stat = Path(f"/proc/{session.pid}/stat").read_text().rpartition(")")[2].split()
        assert session.earliest <= int(stat[19]) <= session.latest
        assert (session.peer.address, session.peer.port) == client.getsockname()
        wait_until(lambda: acceptor.counters().sessions == 1)
    wait_until(lambda: acceptor.counters().sessions == 0)


def environment_of(acceptor: Acceptor) -> dict[str, str]:
    return dict(line.split("=", 1) for line in acceptor.ask().decode().splitlines())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_environment_tells_the_client(host: str) -> None:
    with Acceptor(("/usr/bin/env",), listener=tcp(host)) as acceptor:
        found = environment_of(acceptor)
        port = str(acceptor.listener.getsockname()[1])
        remote = found["REMOTE_PORT"]
        assert remote.isdigit()
        assert found == {
            "A": "1", "PROTO": "TCP",
            "REMOTE_ADDR": host, "REMOTE_PORT": remote, "TCPREMOTEIP": host, "TCPREMOTEPORT": remote,
            "LOCAL_ADDR": host, "LOCAL_PORT": port, "TCPLOCALIP": host, "TCPLOCALPORT": port,
        }  # fmt: skip


def test_an_ipv4_client_of_an_ipv6_socket_has_an_ipv4_address() -> None:
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    listener.listen()
    with Acceptor(("/usr/bin/env",), listener=listener):
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client:
            assert b"REMOTE_ADDR=127.0.0.1\n" in read_to_end(client)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_unix_sockets_tell_the_user(kind: int, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    with Acceptor(("/usr/bin/env",), listener=listener) as acceptor:
        found = environment_of(acceptor)
        me = str(os.getpid())
        assert (found["PROTO"], found["REMOTE_UID"], found["REMOTE_PID"]) == ("UNIX", str(os.getuid()), me)
        assert found["UNIXLOCALPATH"] == str(tmp_path / "socket")
        assert (found["UNIXREMOTEEUID"], found["UNIXREMOTEEGID"]) == (str(os.getuid()), str(os.getgid()))
        assert "REMOTE_ADDR" not in found


@pytest.mark.parametrize("length", [20, 107])
def test_an_abstract_name_begins_with_an_at(length: int) -> None:
    name = f"test-{os.getpid()}-".ljust(length, "x")[-length:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen()
    with Acceptor(("/usr/bin/env",), listener=listener) as acceptor:
        assert environment_of(acceptor)["UNIXLOCALPATH"] == f"@{name}"


def test_the_connection_can_be_descriptor_3() -> None:
    more = [
        operation(Kind.ENVIRONMENT, "set up", strings=["LISTEN_FDS=1", "LISTEN_FDNAMES=connection"]),
        operation(Kind.OWN_PID, "set up", strings=["LISTEN_PID"]),
    ]
    there = "for fd in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd >&3; done"
    script = f'test "$LISTEN_PID" = $$ && echo $LISTEN_FDS $LISTEN_FDNAMES >&3; {there}'
    argv = ("/bin/sh", "-c", script)
    with Acceptor(plan=session_plan(argv, more, descriptor=3)) as acceptor:
        assert acceptor.ask() == b"1 connection\n0\n1\n2\n3\n"


def test_a_session_has_no_other_descriptor() -> None:
    with Acceptor(("/bin/sh", "-c", "ls /proc/$$/fd")) as acceptor:
        assert acceptor.ask() == b"0\n1\n2\n"


def test_the_program_may_have_another_name() -> None:
    plan = session_plan(("/bin/sh", "in.name", "-c", "echo $0 $1", "x", "y"), flags=HAS_ARGV0)
    with Acceptor(plan=plan) as acceptor:
        assert acceptor.ask() == b"x y\n"
    plan = session_plan(("/bin/sh", "in.name", "-c", "tr '\\0' ' ' < /proc/$$/cmdline"), flags=HAS_ARGV0)
    with Acceptor(plan=plan) as acceptor:
        assert acceptor.ask().startswith(b"in.name -c ")


def test_signals_of_a_session_are_as_after_boot() -> None:
    with Acceptor(("/bin/grep", "^Sig[BI]", "/proc/self/status")) as acceptor:
        assert {line.split()[1] for line in acceptor.ask().splitlines()} == {b"0" * 16}


def test_a_large_environment_leaves_no_memory_behind() -> None:
    large = {f"N{number}": "x" * 4000 for number in range(100)}
    with Acceptor(("/bin/sh", "-c", "echo ${#N99}"), environment=large) as acceptor:

        def mapped() -> list[str]:
            return Path(f"/proc/{acceptor.pid}/maps").read_text().splitlines()

        assert acceptor.ask() == b"4000\n"
        before = mapped()
        assert [acceptor.ask() for _ in range(5)] == [b"4000\n"] * 5
        assert mapped() == before


def test_an_acceptor_without_clients_ends() -> None:
    with Acceptor(linger=0.05) as acceptor:
        assert acceptor.wait() == 0


def test_an_acceptor_with_a_session_stays() -> None:
    with Acceptor(("/bin/cat",), linger=0.05) as acceptor:
        with acceptor.connect() as client:
            client.send(b"1")
            assert client.recv(1) == b"1"
            wait_until(lambda: acceptor.counters().sessions == 1)
            assert not acceptor.ends_within(0.3)
        assert acceptor.wait() == 0


def test_sessions_live_on_without_an_acceptor() -> None:
    with Acceptor(("/bin/cat",)) as acceptor, acceptor.connect() as client:
        client.send(b"1")
        assert client.recv(1) == b"1"
        acceptor.stop()
        assert acceptor.status == -15
        client.send(b"2")
        assert client.recv(1) == b"2"


def test_clients_wait_for_a_slot() -> None:
    with Acceptor(("/bin/cat",), max=2) as acceptor:
        clients = [acceptor.connect() for _ in range(4)]
        for client in clients:
            client.send(b"x")
        wait_until(lambda: acceptor.counters().sessions == 2)
        assert acceptor.counters().accepted == 2
        for client in clients[:2]:
            assert client.recv(1) == b"x"
            client.close()
        for client in clients[2:]:
            assert client.recv(1) == b"x"
            client.close()
        assert acceptor.counters().refusal is None


def test_clients_are_refused_without_a_slot() -> None:
    with Acceptor(("/bin/cat",), max=1, refuses=True) as acceptor, acceptor.connect() as client:
        client.send(b"x")
        assert client.recv(1) == b"x"
        assert acceptor.ask() == b""
        found = acceptor.counters()
        assert found.refusal is not None
        assert (found.refused["max"], found.refusal.rule, found.refusal.peer.address) == (1, "max", "127.0.0.1")
        assert f"refused 127.0.0.1 port {found.refusal.peer.port}: max\n" in acceptor.text()


def test_all_sessions_are_logged() -> None:
    with Acceptor(("/bin/sh", "-c", "exit 3"), logged="all") as acceptor:
        acceptor.ask()
        wait_until(lambda: acceptor.counters().ended == 1)
        start, end = acceptor.text().splitlines()
        assert start.startswith("session ")
        assert start.endswith(" has started")
        assert end.startswith(start.removesuffix("has started") + "has ended after 0.")
        assert end.endswith(" s: exit status 3")


@pytest.mark.parametrize(("script", "expected"), [("exit 0", ""), ("kill -9 $$", "killed by signal 9\n")])
def test_failures_are_logged(script: str, expected: str) -> None:
    with Acceptor(("/bin/sh", "-c", script)) as acceptor:
        acceptor.ask()
        wait_until(lambda: acceptor.counters().ended == 1)
        assert acceptor.text().endswith(expected)
        assert bool(acceptor.text()) == bool(expected)


def test_nothing_is_logged() -> None:
    with Acceptor(("/bin/sh", "-c", "exit 1"), logged="none", max=1) as acceptor:
        acceptor.ask()
        wait_until(lambda: acceptor.counters().ended == 1)
        assert acceptor.text() == ""


def test_a_full_log_stops_nobody() -> None:
    with Acceptor(logged="all") as acceptor:
        with suppress(BlockingIOError):
            while os.write(acceptor.log_end, bytes(4096)):
                pass
        os.set_blocking(acceptor.log_end, True)
        assert [acceptor.ask() for _ in range(3)] == [b"ok\n"] * 3
        wait_until(lambda: acceptor.counters().lost_lines == 6)


def test_options_of_another_version_are_refused() -> None:
    with Acceptor() as acceptor:
        acceptor.stop()
        acceptor.plan = acceptor.plan[:4] + b"\0" + acceptor.plan[5:]
        acceptor.start()
        assert acceptor.wait() == 111
        assert '"about": "plan"' in acceptor.text()


def test_several_sockets(tmp_path: Path) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    unix.listen()
    with (
        tcp("::1") as other,
        unix,
        Acceptor(("/bin/sh", "-c", "echo $PROTO $LOCAL_ADDR"), others=(other, unix)) as acceptor,
    ):
        assert acceptor.ask() == b"TCP 127.0.0.1\n"
        with socket.create_connection(other.getsockname()[:2], 30) as client:
            assert read_to_end(client) == b"TCP ::1\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(unix.getsockname())
            assert read_to_end(client) == b"UNIX\n"


def test_the_log_can_be_a_socket_or_a_file(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "log", "wb") as file, Acceptor(logged="all") as acceptor:
        ours.settimeout(30)
        for log in (theirs.fileno(), file.fileno()):
            acceptor.stop()
            os.dup2(log, acceptor.log_end, inheritable=False)
            acceptor.start()
            acceptor.ask()
            wait_until(lambda: acceptor.counters().ended == acceptor.counters().accepted)
        lines = ours.recv(65536).splitlines(), (tmp_path / "log").read_bytes().splitlines()
        assert [len(found) for found in lines] == [2, 2]
        assert acceptor.counters().lost_lines == 0


BOUND = operation(Kind.NO_NEW_PRIVS, "set no_new_privs")


def test_a_session_under_a_filter() -> None:
    filters = [BOUND, operation(Kind.FILTER, "filter", numbers=[0, *refusing(errno.EPERM, "socket")])]
    script = "import socket\ntry: socket.socket()\nexcept OSError as error: print(error.errno)"
    with Acceptor(plan=session_plan(("/usr/bin/python3", "-ISc", script), last=filters)) as acceptor:
        assert [acceptor.ask() for _ in range(2)] == [b"1\n"] * 2


def test_a_failure_under_a_filter_is_told() -> None:
    filters = [BOUND, operation(Kind.FILTER, "filter", numbers=[0, *refusing(errno.EPERM, "write", "execve")])]
    with Acceptor(plan=session_plan(("/bin/true",), last=filters)) as acceptor:
        assert acceptor.ask() == b""
        trouble = acceptor.counters().trouble
        assert trouble is not None
        assert str(read_failure(trouble.report)) == "cannot exec '/bin/true': Operation not permitted (EPERM)"
