"""A cgroup for each session of a real acceptor: what ends with a session, and what outlives acceptors and spawnd."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from supervisor.process.cgroup import cgroup_of
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive
from tests.integration.test_accept import status
from tests.integration.test_cgroups import subtree
from tests.unit.launch.accepting import is_answered

__all__ = ["subtree"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")
PATIENCE = 60

# Starts a daemon, tells its pid, and returns what it gets.
LEAVES = '#!/bin/sh\nsetsid sleep 424242 <&- >&- 2>&- &\necho "$$ $!"\nexec cat\n'
SERVICE = """
leaves = {
  exec = "@/leaves", fd = { stream("@/socket", { mode = "rw-rw-rw-" }) }, env = { PATH = "/bin:/usr/bin" },
  accept = { max = 3, on_limit = "refuse", session_cgroup = true }, backoff = { first = 0.01, max = 0.01, jitter = 0 },
}
"""
NOT_AGAIN = SERVICE.replace("0.01", "3600").replace("backoff", 'healthy_after = "1h", backoff')


class Client:
    """A client that knows the process of its session, and the daemon that this has left."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(folder / "socket"))
        data = b""
        while not data.endswith(b"\n"):
            part = self.socket.recv(100)
            assert part, "the connection was closed"
            data += part
        self.pid, self.daemon = map(int, data.split())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def settings(subtree: Path, folder: Path) -> str:
    (folder / "leaves").write_text(LEAVES)
    (folder / "leaves").chmod(0o755)
    return f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'


def run(spawnd: Start, settings: str, service: str = SERVICE) -> Daemon:
    daemon = spawnd(settings + service)
    daemon.wait_state("leaves", "asleep")
    return daemon


def below(subtree: Path) -> list[str]:
    """Return the cgroups of the sessions."""
    folder = subtree / "leaves" / "sessions"
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.exists() else []


def is_refused(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(folder / "socket"))
        return client.recv(1) == b""


def test_a_daemon_of_a_session_ends_with_it(subtree: Path, spawnd: Start, folder: Path, settings: str) -> None:
    daemon = run(spawnd, settings)
    with Client(folder) as one, Client(folder) as other:
        assert (cgroup_of(one.pid) or "").endswith("/leaves/sessions/1")
        assert cgroup_of(one.daemon) == cgroup_of(one.pid)
        assert (cgroup_of(daemon.wait_running("leaves")) or "").endswith("/leaves/acceptor")
        one.socket.close()
        wait_until(lambda: not alive(one.daemon), "the end of the daemon")
        wait_until(lambda: below(subtree) == ["2"], "the end of its cgroup")
        assert is_answered(other.socket)
        assert alive(other.daemon)
        assert (subtree / "leaves").stat().st_mode & 0o777 == 0o700
        assert daemon.ctl("stop", "leaves").returncode == 0
        assert not alive(other.pid)
        assert not alive(other.daemon)
        assert not (subtree / "leaves").exists()


def test_sessions_outlive_acceptors_and_spawnd(subtree: Path, spawnd: Start, folder: Path, settings: str) -> None:
    daemon = run(spawnd, settings)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(folder)) for _ in range(3)]
        for victim in ("acceptor", "spawnd", "exec", "acceptor", "both"):
            before = daemon.wait_running("leaves")
            if victim == "exec":
                assert daemon.ctl("reexec").returncode == 0
            if victim in ("spawnd", "both"):
                daemon.lose()
            if victim in ("acceptor", "both"):
                os.kill(before, signal.SIGKILL)
            if victim in ("spawnd", "both"):
                daemon.again()
            if victim in ("acceptor", "both"):
                daemon.wait_running("leaves", other_than=before)
            wait_until(lambda: status(daemon, "leaves")["sessions"] == 3, "three sessions")
            assert all(is_answered(client.socket) for client in clients), victim
            assert all(alive(client.daemon) for client in clients), victim
            assert is_refused(folder)
            last = clients.pop(0)
            last.socket.close()
            wait_until(lambda last=last: not alive(last.daemon), "the end of a daemon")  # type: ignore[misc]
            wait_until(lambda: len(below(subtree)) == 2, "the end of a cgroup")
            clients.append(stack.enter_context(Client(folder)))
        assert daemon.ctl("stop", "leaves").returncode == 0
        assert not any(alive(client.daemon) for client in clients)
        assert not (subtree / "leaves").exists()


def test_what_ends_without_an_acceptor_is_removed_by_the_next(
    subtree: Path, spawnd: Start, folder: Path, settings: str
) -> None:
    daemon = run(spawnd, settings, NOT_AGAIN)
    with Client(folder) as client:
        os.kill(daemon.wait_running("leaves"), signal.SIGKILL)
        daemon.wait_state("leaves", "backoff")
        assert is_answered(client.socket)
    wait_until(lambda: not alive(client.pid), "the end of the session")
    assert alive(client.daemon)
    daemon.ctl("restart", "leaves")
    with Client(folder):
        wait_until(lambda: not alive(client.daemon), "the end of the daemon")
        wait_until(lambda: len(below(subtree)) == 1, "the end of its cgroup")


@pytest.mark.parametrize("is_first", [True, False])
def test_sessions_outlive_a_change_of_the_definition(
    subtree: Path, spawnd: Start, folder: Path, settings: str, is_first: bool
) -> None:
    with_cgroups, without = SERVICE, SERVICE.replace("session_cgroup = true", "session_cgroup = false")
    first, second = (with_cgroups, without) if is_first else (without, with_cgroups)
    daemon = run(spawnd, settings, first)
    with Client(folder) as old:
        before = daemon.wait_running("leaves")
        daemon.definitions.write_text((settings + second).replace("@", str(folder)))
        assert daemon.ctl("apply").returncode == 0
        daemon.wait_running("leaves", other_than=before)
        assert is_answered(old.socket)
        with Client(folder) as new:
            assert ("/sessions/" in (cgroup_of(new.pid) or "")) is not is_first
            old.socket.close()
            wait_until(lambda: status(daemon, "leaves")["sessions"] == 1, "the end of the old one")
            assert is_answered(new.socket)
            assert daemon.ctl("stop", "leaves").returncode == 0
        assert not alive(old.daemon)
        assert not alive(new.daemon)
        assert not (subtree / "leaves").exists()


def test_another_program_takes_over_where_sessions_have_cgroups(
    subtree: Path, spawnd: Start, folder: Path, settings: str
) -> None:
    daemon = run(spawnd, settings)
    with Client(folder) as client:
        before = daemon.wait_running("leaves")
        whole = 'leaves = { exec = "/bin/sleep", arg = { "100000" } }'
        daemon.definitions.write_text(settings + whole)
        assert daemon.ctl("apply").returncode == 0
        daemon.wait_running("leaves", other_than=before)
        assert is_answered(client.socket)
        assert daemon.ctl("stop", "leaves").returncode == 0
        assert not alive(client.daemon)
        assert not (subtree / "leaves").exists()


def test_without_a_cgroup_the_service_says_why_it_does_not_start(spawnd: Start, folder: Any) -> None:
    daemon = run(spawnd, "", NOT_AGAIN)
    assert "leaves: cannot start without a delegated cgroup: accept.session_cgroup" in daemon.log()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "socket"))
        daemon.wait_state("leaves", "backoff")
        why = "could not use session_cgroup: spawnd has no delegated cgroup here"
        assert why in daemon.ctl("why", "leaves").stdout


@pytest.mark.parametrize("session_cgroup", [True, False])
def test_a_limit_without_a_controller_is_told(
    subtree: Path, spawnd: Start, folder: Path, settings: str, session_cgroup: bool
) -> None:
    if "pids" in (subtree / "cgroup.controllers").read_text().split():
        pytest.skip("there is a controller for pids_max here")
    how = f"session_cgroup = {str(session_cgroup).lower()} }}, pids_max = 9"
    daemon = run(spawnd, settings, SERVICE.replace("session_cgroup = true }", how))
    with Client(folder):
        wait_until(lambda: "leaves: pids_max needs the pids controller" in daemon.log(), "a warning")
