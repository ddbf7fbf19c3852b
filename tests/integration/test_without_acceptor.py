"""Services with `accept` without an acceptor: starts that fail are tried again for clients, and old sessions end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_accept import Client, path, run, status, wait_empty
from tests.integration.test_cgroups import subtree

__all__ = ["subtree"]
MANY = 150  # services, each of which would be started once a second

TIMES = """
_DEFAULT = { exec = "@/session", arg = { "0" }, accept = { session_timeout = false } }
few = { fd = { stream("@/few") } }
stubborn = { fd = { stream("@/stubborn") }, arg = { "0", "stubborn" }, stop_timeout = "300ms" }
missing = { fd = { stream("@/missing") }, backoff = { first = "1h", max = "1h" } }
"""


def connect(daemon: Daemon, name: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(path(daemon, name))
    return client


def test_clients_wait_a_second_at_most_for_an_acceptor_that_cannot_be_started(spawnd: Start, folder: Path) -> None:
    daemon = spawnd('a = { exec = "/bin/cat", fd = { stream("@/a") }, accept = true, chroot = "@/root" }')
    daemon.wait_state("a", "asleep")
    with connect(daemon, "a") as client:
        waits: list[float] = []

        def failures() -> int:
            found = status(daemon, "a")
            waits.append(found["next_start_s"] or 0.0)
            return int(found["failures"])

        wait_until(lambda: failures() >= 8, "eight failures")
        assert 0.5 < max(waits) <= 1
        cause = f"could not chroot '{folder}/root': No such file or directory"
        wait_until(lambda: cause in daemon.ctl("why", "a").stdout, "the cause")
        assert daemon.log().count("cannot chroot") == 1
        (folder / "root").mkdir()
        wait_until(lambda: daemon.state("a") == "running", "the acceptor")
        assert client.recv(10) == b""  # there is no program: this is a failure of the session
        wait_until(lambda: "exec" in daemon.ctl("why", "a").stdout, "its cause")


def test_an_acceptor_that_cannot_be_started_waits_for_a_client(spawnd: Start) -> None:
    daemon = spawnd('a = { exec = "/bin/cat", fd = { stream("@/a") }, accept = true, chroot = "@/root" }')
    daemon.wait_state("a", "asleep")
    assert daemon.ctl("start", "a").returncode == 1
    daemon.wait_state("a", "asleep")
    starts = status(daemon, "a")["starts"]
    why = json.loads(daemon.ctl("why", "--json", "a").stdout)
    assert "; the last time, it could not chroot" in why["answer"]
    assert why["chain"][0]["step"] == "chroot"
    assert "tries again" in why["hint"]
    assert status(daemon, "a")["starts"] == starts


def test_many_services_that_fail_are_tried_again_one_after_the_other(spawnd: Start) -> None:
    keys = 'exec = "/bin/cat", accept = true, chroot = "@/root"'
    daemon = spawnd(f'for n = 1, {MANY} do _G["a" .. n] = {{ {keys}, fd = {{ stream("@/a" .. n) }} }} end')
    wait_until(lambda: {each["state"] for each in daemon.services().values()} == {"asleep"}, "all to be asleep")

    def starts() -> list[int]:
        return [each["starts"] for each in json.loads(daemon.ctl("status", "all", "--json").stdout)]

    with ExitStack() as stack:
        for number in range(MANY):
            stack.enter_context(connect(daemon, f"a{number + 1}"))
        wait_until(lambda: min(starts()) >= 3, "each to be tried again")
        begin, before = time.monotonic(), sum(starts())
        wait_until(lambda: min(starts()) >= 6, "each to be tried again")
        after = sum(starts())
        assert (after - before) / (time.monotonic() - begin) <= 110


def wait_without_acceptor(daemon: Daemon, name: str, how: str) -> None:
    """Have a service without its acceptor, whose sessions live on."""
    match how:
        case "asleep":
            assert daemon.ctl("sleep", name).returncode == 0
        case "stopped":
            assert daemon.ctl("stop", "--keep-sessions", name).returncode == 0
        case "backoff":
            os.kill(daemon.wait_running(name), signal.SIGKILL)
    daemon.wait_state(name, how)


def limit(daemon: Daemon, seconds: int) -> None:
    """Limit the time of sessions, only now: until then the acceptor was there."""
    text = daemon.definitions.read_text()
    daemon.definitions.write_text(text.replace("session_timeout = false", f'session_timeout = "{seconds}s"'))
    assert daemon.ctl("apply").returncode == 0


@pytest.mark.parametrize("how", ["asleep", "stopped"])
def test_old_sessions_end_without_an_acceptor(spawnd: Start, folder: Path, how: str) -> None:
    daemon = run(spawnd, folder, definitions=TIMES)
    with Client(path(daemon, "few")).hear() as client:
        wait_without_acceptor(daemon, "few", how)
        limit(daemon, 1)
        assert client.is_cut()
        assert daemon.state("few") == how
        daemon.wait_log("few: 1 session older than session_timeout: sent TERM")


def test_old_sessions_end_while_their_acceptor_waits_for_its_next_start(spawnd: Start, folder: Path) -> None:
    daemon = run(spawnd, folder, definitions=TIMES.replace("false", '"5s"'))
    with Client(path(daemon, "missing")).hear() as client:
        wait_without_acceptor(daemon, "missing", "backoff")
        assert client.is_cut()
        assert daemon.state("missing") == "backoff"
        daemon.wait_log("missing: 1 session older than session_timeout: sent TERM")


def test_sessions_that_outlast_their_time_are_killed(spawnd: Start, folder: Path) -> None:
    daemon = run(spawnd, folder, definitions=TIMES)
    with Client(path(daemon, "stubborn")).hear() as client:
        wait_without_acceptor(daemon, "stubborn", "asleep")
        limit(daemon, 1)
        assert client.is_cut()
        daemon.wait_log("stubborn: 1 session older than session_timeout: sent KILL")


def sessions_outlive_sleep_and_a_loss(daemon: Daemon) -> None:
    with Client(path(daemon, "few")).hear() as client:
        wait_without_acceptor(daemon, "few", "asleep")
        daemon.lose()
        daemon.again()
        assert status(daemon, "few")["sessions"] == 1
        assert client.is_served()
        limit(daemon, 3600)
        daemon.ctl("reexec")
        assert client.is_served()
        assert daemon.state("few") == "asleep"
        daemon.definitions.write_text(daemon.definitions.read_text().replace("3600s", "1s"))
        assert daemon.ctl("apply").returncode == 0
        assert client.is_cut()
        daemon.wait_log("few: 1 session older than session_timeout: sent TERM")
        wait_empty(daemon)


def test_sessions_of_a_sleeping_service_are_found_again(spawnd: Start, folder: Path) -> None:
    sessions_outlive_sleep_and_a_loss(run(spawnd, folder, definitions=TIMES))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")
def test_sessions_of_a_sleeping_service_are_found_again_in_its_cgroup(
    subtree: Path, spawnd: Start, folder: Path
) -> None:
    sessions_outlive_sleep_and_a_loss(run(spawnd, folder, f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n', TIMES))
