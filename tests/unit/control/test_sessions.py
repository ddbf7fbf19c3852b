"""Sessions and their counters, over the table of a real acceptor whose service is in the fake core."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from supervisor.definitions.service import Accept, Service
from supervisor.launch.session_table import open_denied
from supervisor.lifecycle.life import State
from supervisor.process.launch import LONGEST_S
from tests.unit.control.bench import Bench
from tests.unit.control.test_introspection import SPAWND
from tests.unit.launch.accepting import Acceptor, is_answered, read_to_end, session_plan, tcp, wait_until
from tests.unit.launch.test_take_over import now, write_slot

# the session proper echoes; a child of it shares the connection
FAMILY = ("/bin/sh", "-c", "sleep 300 & exec cat")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def acceptor(bench: Bench, stack: ExitStack) -> Acceptor:
    """An acceptor of the service web, without sessions."""
    acceptor = stack.enter_context(Acceptor(FAMILY, max=3, refuses=True))
    bench.define(Service("web", accept=Accept(), file="/a.lua", line=7, lines={"exec": 9}), Service("other"))
    bench.core.start(["web"])
    bench.run_until(lambda: bench.core.units["web"].life.state is State.RUNNING)
    bench.core.units["web"].session_table = acceptor.table
    return acceptor


def connect(acceptor: Acceptor, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(acceptor.connect())
    assert is_answered(client)
    return client


def peer_of(client: socket.socket) -> str:
    host, port = client.getsockname()
    return f"{host}:{port}"


def rows(bench: Bench, *names: str) -> list[dict[str, Any]]:
    reply = bench.call("io.spawnd.Sessions", names=list(names))["parameters"]
    SPAWND.check(reply, SPAWND.methods["Sessions"][1])
    found: list[dict[str, Any]] = reply["sessions"]
    return found


def kill(bench: Bench, session: str, **more: object) -> tuple[bool, str]:
    (result,) = bench.call("io.spawnd.Kill", name="web", session=session, **more)["parameters"]["results"]
    return result["ok"], result["message"]


def test_each_session_has_a_row(bench: Bench, acceptor: Acceptor, stack: ExitStack) -> None:
    clients = [connect(acceptor, stack) for _ in range(2)]
    found = rows(bench)
    assert [row["name"] for row in found] == ["web", "web"]
    assert [row["peer"] for row in found] == [peer_of(client) for client in clients]
    assert {row["pid"] for row in found} == {session.pid for session in acceptor.sessions()}
    for row in found:
        assert (row["address"], row["uid"], row["processes"]) == ("127.0.0.1", None, 2)
        assert row["memory_bytes"] > int(Path(f"/proc/{row['pid']}/statm").read_text().split()[1])
        assert 0 <= row["age_s"] < 60
    assert len(rows(bench, "w*")) == 2
    assert rows(bench, "other") == []


def test_a_session_that_has_ended_has_no_row(bench: Bench, acceptor: Acceptor, stack: ExitStack) -> None:
    """The table still has it, as there is no acceptor that could reap it."""
    connect(acceptor, stack)
    (session,) = acceptor.sessions()
    acceptor.stop(signal.SIGKILL)
    os.killpg(session.pid, signal.SIGKILL)
    wait_until(lambda: rows(bench) == [])
    assert acceptor.sessions() == [session]
    assert kill(bench, str(session.pid)) == (
        False, f"it has no session '{session.pid}': `spawnctl sessions web` shows them"
    )  # fmt: skip


def test_a_client_of_a_unix_socket_has_a_user(bench: Bench, stack: ExitStack, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    acceptor = stack.enter_context(Acceptor(("/bin/cat",), listener=listener))
    bench.core.units["web"].session_table = acceptor.table
    connect(acceptor, stack)
    (row,) = rows(bench)
    assert row["peer"] == f"uid={os.getuid()},pid={os.getpid()}"
    assert (row["address"], row["uid"], row["client_pid"]) == (None, os.getuid(), os.getpid())
    connect(acceptor, stack)
    ok, message = kill(bench, row["peer"])
    assert not ok
    assert message.startswith("several of its sessions have that peer, name one: ")
    assert len(rows(bench)) == 2


def test_an_ipv6_client_is_in_brackets(bench: Bench, stack: ExitStack) -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    acceptor = stack.enter_context(Acceptor(("/bin/cat",), listener=listener))
    bench.core.units["web"].session_table = acceptor.table
    client = connect(acceptor, stack)
    assert rows(bench)[0]["peer"] == f"[::1]:{client.getsockname()[1]}"


@pytest.mark.parametrize("signum", [None, signal.SIGKILL])
@pytest.mark.parametrize("by", ["pid", "peer"])
def test_kill_ends_a_session_with_all_its_processes(
    bench: Bench, acceptor: Acceptor, stack: ExitStack, by: str, signum: int | None
) -> None:
    first, other = connect(acceptor, stack), connect(acceptor, stack)
    row = rows(bench)[0]
    name = signal.Signals(signum or signal.SIGTERM).name.removeprefix("SIG")
    ok, message = kill(bench, str(row[by]), signal=signum)
    assert (ok, message) == (True, f"{name} sent to session {row['pid']} of {peer_of(first)}")
    assert read_to_end(first) == b""  # its child has shared the connection
    wait_until(lambda: acceptor.counters().ended == 1)
    assert is_answered(other)
    assert [row["peer"] for row in rows(bench)] == [peer_of(other)]


def test_the_stop_signal_is_the_default(bench: Bench, acceptor: Acceptor, stack: ExitStack) -> None:
    unit = bench.core.units["web"]
    unit.service = replace(unit.service, stop_signal=signal.SIGHUP)
    client = connect(acceptor, stack)
    assert kill(bench, peer_of(client))[1].startswith("HUP sent to session ")


def test_kill_hits_no_process_that_has_taken_the_pid(bench: Bench, stack: ExitStack) -> None:
    acceptor = stack.enter_context(Acceptor(("/bin/cat",)))
    acceptor.stop()
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True)
    stack.callback(os.waitpid, pid, 0)
    stack.callback(os.kill, pid, signal.SIGKILL)
    write_slot(acceptor, 0, 2, pid, now() + 10**9, now() + 2 * 10**9)
    bench.core.units["web"].session_table = acceptor.table
    assert rows(bench) == []
    assert not kill(bench, str(pid))[0]
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    write_slot(acceptor, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("parameters", [{}, {"session": "1", "signal": 0}, {"session": "1", "signal": 65}])
def test_wrong_parameters(bench: Bench, parameters: dict[str, object]) -> None:
    assert bench.call("io.spawnd.Kill", name="web", **parameters)["error"] == "org.varlink.service.InvalidParameter"


def details(bench: Bench) -> dict[str, Any]:
    reply = bench.call("io.spawnd.Status", names=["web"])["parameters"]
    SPAWND.check(reply, SPAWND.methods["Status"][1])
    row: dict[str, Any] = reply["services"][0]
    return row


def test_status_has_the_counters(bench: Bench, acceptor: Acceptor, stack: ExitStack) -> None:
    for _ in range(3):
        connect(acceptor, stack)
    wait_until(lambda: acceptor.counters().sessions == 3)
    found = details(bench)
    assert (found["sessions"], found["accepted"], found["refused"]) == (3, 3, {})
    assert (found["last_refusal"], found["last_unserved"], found["trouble"]) == (None, None, "")
    for _ in range(2):
        with acceptor.connect() as client:
            last = peer_of(client)
            assert read_to_end(client) == b""
    found = details(bench)
    assert (found["accepted"], found["refused"]) == (5, {"max": 2})
    assert (found["last_refusal"]["peer"], found["last_refusal"]["rule"]) == (last, "max")


def test_clients_without_a_session_are_told_until_one_has_it(bench: Bench, acceptor: Acceptor) -> None:
    acceptor.stop()
    good, acceptor.plan = acceptor.plan, session_plan(("/none",))
    acceptor.start()
    assert [acceptor.ask() for _ in range(2)] == [b""] * 2
    wait_until(lambda: acceptor.counters().trouble is not None)
    told = "cannot exec '/none': No such file or directory (ENOENT), 2 times"
    found = details(bench)
    assert found["trouble"] == told
    assert bench.call("io.spawnd.List")["parameters"]["services"][0]["trouble"] == told
    last = found["last_unserved"]
    assert (last["step"], last["path"], last["errno"], last["failures"]) == ("exec", "/none", 2, 2)
    why = bench.call("io.spawnd.Why", name="web")["parameters"]
    SPAWND.check(why, SPAWND.methods["Why"][1])
    assert why["answer"].startswith("web has been running since ")
    assert why["answer"].endswith(f"; its last client got no session: {told}")
    assert why["hint"] == "see /a.lua:9"
    (link,) = why["chain"]
    assert (link["kind"], link["step"], link["path"], link["errno"]) == ("running", "exec", "/none", 2)
    acceptor.stop()
    acceptor.plan = good
    acceptor.start()
    with acceptor.connect() as client:
        assert is_answered(client)
        wait_until(lambda: acceptor.counters().sessions == 1)
        found = details(bench)
        assert (found["trouble"], found["last_unserved"]["failures"]) == ("", 2)
        assert "session" not in bench.call("io.spawnd.Why", name="web")["parameters"]["answer"]


LISTED = "`spawnctl sessions --denied` shows those that are"


def denied(bench: Bench) -> list[dict[str, Any]]:
    reply = bench.call("io.spawnd.Denied")["parameters"]
    SPAWND.check(reply, SPAWND.methods["Denied"][1])
    found: list[dict[str, Any]] = reply["denied"]
    return found


def forgive(bench: Bench, *addresses: str) -> list[tuple[str, bool, str]]:
    reply = bench.call("io.spawnd.Forgive", addresses=list(addresses))["parameters"]
    return [(row["address"], row["ok"], row["message"]) for row in reply["results"]]


def trap(path: Path, stack: ExitStack, host: str, **options: Any) -> Acceptor:
    fd = open_denied(str(path), writes=True)
    stack.callback(os.close, fd)
    return stack.enter_context(Acceptor(denied=fd, is_trap=True, listener=tcp(host), **options))


def test_denied_addresses_are_listed_and_forgiven(bench: Bench, stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "denied"
    bench.core.denied = str(path)
    assert denied(bench) == []
    assert forgive(bench, "all") == []
    trap(path, stack, "127.0.0.1", deny_time=600).ask("127.0.0.2")
    trap(path, stack, "::1", deny_time=LONGEST_S).ask()
    ours, other = denied(bench)
    assert other == {"address": "::/64", "until": None, "left_s": None}
    assert ours["address"] == "127.0.0.2"
    assert 500 < ours["left_s"] <= 600
    until = datetime.fromisoformat(ours["until"]).timestamp()
    assert abs(until - time.time() - ours["left_s"]) < 60
    assert forgive(bench, "127.0.0.3", "127.0.0.2", "127.0.0.2/24", "::1", "nowhere") == [
        ("127.0.0.3", False, f"is not denied: {LISTED}"),
        ("127.0.0.2", True, "is let in again"),
        ("127.0.0.2/24", False, "is no address, like 192.0.2.7 or 2001:db8::/64"),
        ("::/64", True, "is let in again"),
        ("nowhere", False, "is no address, like 192.0.2.7 or 2001:db8::/64"),
    ]
    assert denied(bench) == []


def test_all_are_forgiven_and_only_while_they_are_denied(bench: Bench, stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "denied"
    bench.core.denied = str(path)
    brief = trap(path, stack, "127.0.0.1", deny_time=0.05)
    brief.ask("127.0.0.9")
    wait_until(lambda: denied(bench) == [])
    assert forgive(bench, "127.0.0.9") == [("127.0.0.9", False, f"is not denied: {LISTED}")]
    long = trap(path, stack, "127.0.0.1")
    for number in range(2, 7):
        long.ask(f"127.0.0.{number}")
    assert len(denied(bench)) == 5
    assert [ok for _address, ok, _message in forgive(bench, "all")] == [True] * 5
    assert denied(bench) == []
    long.ask("127.0.0.2")
    assert [row["address"] for row in denied(bench)] == ["127.0.0.2"]


def test_a_forgiven_address_is_let_in(bench: Bench, stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "denied"
    bench.core.denied = str(path)
    trap(path, stack, "127.0.0.1").ask("127.0.0.2")
    fd = open_denied(str(path), writes=False)
    stack.callback(os.close, fd)
    other = stack.enter_context(Acceptor(denied=fd))
    assert other.ask("127.0.0.2") == b""
    assert forgive(bench, "::ffff:127.0.0.2") == [("127.0.0.2", True, "is let in again")]
    assert other.ask("127.0.0.2") == b"ok\n"


def test_a_table_that_cannot_be_read_is_an_error(bench: Bench, tmp_path: Path) -> None:
    bench.core.denied = str(tmp_path / "link")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    reply = bench.call("io.spawnd.Denied")
    assert reply["error"] == "io.spawnd.Failed"
    assert reply["parameters"]["message"].startswith(f"cannot read '{tmp_path}/link': ")
