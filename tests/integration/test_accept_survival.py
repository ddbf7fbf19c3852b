"""Sessions of services with one process for each connection that outlive their acceptor, spawnd and their service."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_accept import DEFINITIONS, Client, path, run, status
from tests.integration.test_cgroups import subtree

__all__ = ["subtree"]


@pytest.mark.parametrize("is_lost", [True, False])
def test_sessions_outlive_spawnd(spawnd: Start, folder: Any, is_lost: bool) -> None:
    daemon = run(spawnd, folder)
    with Client(path(daemon, "few")).hear() as one, Client(path(daemon, "few")).hear() as other:
        acceptor = daemon.wait_running("few")
        if is_lost:
            daemon.lose()
            daemon.again()
        else:
            daemon.ctl("reexec")
        assert daemon.wait_running("few") == acceptor
        os.kill(acceptor, signal.SIGKILL)
        daemon.wait_running("few", other_than=acceptor)
        assert one.is_served()
        assert other.is_served()
        with Client(path(daemon, "few")) as third:  # the table is the same one
            assert third.is_cut()
        daemon.ctl("stop", "few")
        assert one.is_cut()
        assert other.is_cut()


def test_fifty_sessions_outlive_all_acceptors_and_spawnd(spawnd: Start, folder: Any) -> None:
    daemon = run(spawnd, folder)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(path(daemon, "full"))) for _ in range(50)]
        assert all(client.is_served() for client in clients)
        for victim in ("acceptor", "acceptor", "spawnd", "acceptor", "spawnd"):
            if victim == "spawnd":
                daemon.lose()
                daemon.again()
            else:
                before = daemon.wait_running("full")
                os.kill(before, signal.SIGKILL)
                daemon.wait_running("full", other_than=before)
            wait_until(lambda: status(daemon, "full")["sessions"] == 50, "50 sessions")
            assert all(client.is_served() for client in clients)
            with Client(path(daemon, "full")) as another:
                assert another.is_cut()
        clients.pop().socket.close()
        wait_until(lambda: status(daemon, "full")["sessions"] == 49, "49 sessions")
        assert stack.enter_context(Client(path(daemon, "full"))).is_served()


def test_an_acceptor_serves_clients_while_there_is_no_spawnd(spawnd: Start, folder: Any) -> None:
    daemon = run(spawnd, folder)
    with Client(path(daemon, "few")).hear() as one:
        daemon.lose()
        with Client(path(daemon, "few")).hear() as other:
            assert other.is_served()
            daemon.again()
            with Client(path(daemon, "few")) as third:
                assert third.is_cut()
            assert one.is_served()
            assert status(daemon, "few")["sessions"] == 2
            daemon.ctl("stop", "few")
            assert one.is_cut()
            assert other.is_cut()


def stop_without_acceptor(daemon: Daemon) -> None:
    with Client(path(daemon, "polite")).hear() as client:
        os.kill(daemon.wait_running("polite"), signal.SIGKILL)
        daemon.wait_state("polite", "backoff")
        assert client.is_served()
        assert daemon.ctl("stop", "polite").returncode == 0
        assert client.socket.recv(10) == b"bye"
        assert client.is_cut()
        assert not os.path.exists(f"/proc/{client.pid}")
        assert daemon.state("polite") == "stopped"


def test_sessions_that_an_acceptor_has_left_are_told_to_end(spawnd: Start, folder: Any) -> None:
    stop_without_acceptor(run(spawnd, folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")
def test_sessions_in_a_cgroup_that_an_acceptor_has_left_are_told_to_end(
    subtree: Path, spawnd: Start, folder: Any
) -> None:
    stop_without_acceptor(run(spawnd, folder, f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'))


def test_sessions_that_do_not_end_by_themselves_are_killed(spawnd: Start, folder: Any) -> None:
    waits = 'stop_timeout = "500ms", healthy_after = "1h", backoff = { first = "1h", max = "1h" }'
    daemon = run(spawnd, folder, "", DEFINITIONS.replace('stop_timeout = "500ms"', waits))
    with Client(path(daemon, "stubborn")).hear() as client:
        os.kill(daemon.wait_running("stubborn"), signal.SIGKILL)
        daemon.wait_state("stubborn", "backoff")
        assert daemon.ctl("stop", "stubborn").returncode == 0
        assert client.is_cut()


def sessions_are_found_again(daemon: Daemon) -> None:
    with Client(path(daemon, "few")).hear() as one, Client(path(daemon, "few")).hear() as other:
        acceptor = daemon.wait_running("few")
        daemon.lose()
        os.kill(acceptor, signal.SIGKILL)
        daemon.again()
        daemon.wait_running("few", other_than=acceptor)
        assert one.is_served()
        assert other.is_served()
        with Client(path(daemon, "few")) as third:  # the next acceptor counts them
            assert third.is_cut()
        one.socket.close()
        wait_until(lambda: status(daemon, "few")["sessions"] == 1, "its end")
        with Client(path(daemon, "few")).hear() as third:
            assert third.is_served()
            assert daemon.ctl("stop", "few").returncode == 0
            assert other.is_cut()
            assert third.is_cut()


def test_sessions_are_found_again_after_a_loss_with_the_acceptor(spawnd: Start, folder: Any) -> None:
    sessions_are_found_again(run(spawnd, folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")
def test_sessions_in_a_cgroup_are_found_again_after_a_loss_with_the_acceptor(
    subtree: Path, spawnd: Start, folder: Any
) -> None:
    sessions_are_found_again(run(spawnd, folder, f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'))


@pytest.mark.parametrize("change", ["start", "reexec", "loss"])
def test_sessions_may_outlive_a_stop(spawnd: Start, folder: Any, change: str) -> None:
    daemon = run(spawnd, folder)
    with Client(path(daemon, "few")).hear() as one, Client(path(daemon, "few")).hear() as other:
        assert daemon.ctl("stop", "--keep-sessions", "few").stdout == "few: stopped\n"
        match change:
            case "reexec":
                daemon.ctl("reexec")
            case "loss":
                daemon.lose()
                daemon.again()
        assert daemon.state("few") == "stopped"
        assert one.is_served()
        assert other.is_served()
        rows = json.loads(daemon.ctl("sessions", "--json", "few").stdout)
        assert {row["pid"] for row in rows} == {one.pid, other.pid}
        assert {row["peer"] == "unknown" for row in rows} == {change == "loss"}  # of the table, too
        assert status(daemon, "few")["sessions"] == 2
        assert "`spawnctl stop few` ends its sessions" in daemon.ctl("why", "few").stdout
        if change == "start":
            daemon.ctl("start", "few")
            with Client(path(daemon, "few")) as third:  # the next acceptor counts them
                assert third.is_cut()
        daemon.ctl("stop", "few")
        assert one.is_cut()
        assert other.is_cut()
        assert daemon.ctl("sessions", "few").stdout == "No sessions\n"


def test_sessions_outlive_a_definition_without_accept(spawnd: Start, folder: Any) -> None:
    daemon = run(spawnd, folder)
    with Client(path(daemon, "unix")).hear() as client:
        before = daemon.wait_running("unix")
        whole = 'unix = { exec = "/bin/sleep", arg = { "100000" }, accept = false, '
        daemon.definitions.write_text(DEFINITIONS.replace("unix = { ", whole).replace("@", str(folder)))
        assert daemon.ctl("apply").returncode == 0
        after = daemon.wait_running("unix", other_than=before)
        assert sorted(map(int, os.listdir(f"/proc/{after}/fd"))) == [0, 1, 2, 3]  # without the table of sessions
        assert client.is_served()
        daemon.ctl("stop", "unix")
        assert client.is_cut()
