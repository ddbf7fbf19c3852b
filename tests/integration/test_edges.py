"""Corners of a service's life in which a supervisor can get stuck, or can be made to."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests.daemon import children, wait_until
from tests.integration.conftest import Start
from tests.integration.test_life import NOTIFY
from tests.integration.test_reload import SLEEP
from tests.integration.test_reload_edges import ENV, tcp
from tests.ports import free_port
from tests.unit.waiting import HELD_UP

Program = Callable[[str, str], str]


def test_time_outs_of_any_length(spawnd: Start, program: Program) -> None:
    script = program("greedy", NOTIFY + 'say("EXTEND_TIMEOUT_USEC=9999999999999999")\ntime.sleep(100000)\n')
    daemon = spawnd(
        f"""
        a = {{ exec = "{script}", ready = "notify", start_timeout = "30d" }}
        b = {{ exec = "{script}", ready = "notify", start_timeout = "1s" }}
        c = {{ {SLEEP} }}
        """
    )
    daemon.wait_state("c", "running")
    wait_until(lambda: daemon.services()["b"]["state_s"] > 1.2, "more than a second")
    assert (daemon.state("a"), daemon.state("b")) == ("starting", "starting")


def test_a_port_is_free_once_a_stop_is_answered(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLEEP}, {tcp(port)} }}")
    for _ in range(5):
        daemon.wait_state("a", "running")
        assert daemon.ctl("stop", "a").returncode == 0
        with socket.socket() as mine:
            mine.bind(("127.0.0.1", port))
        assert daemon.ctl("start", "a").returncode == 0


def test_what_only_comes_after_one_that_never_starts_does_not_wait(spawnd: Start) -> None:
    daemon = spawnd(
        f"""
        d = {{ exec = "/nonexistent", start_limit = 2, backoff = {{ first = "50ms" }} }}
        a = {{ {SLEEP}, depends = "d" }}
        b = {{ {SLEEP}, after = {{ "a" }} }}
        """
    )
    daemon.wait_state("b", "running")
    assert (daemon.state("d"), daemon.state("a")) == ("failed", "waiting")


def test_a_second_term_does_not_wait_for_the_stubborn(spawnd: Start, program: Program) -> None:
    script = program("stubborn", "#!/bin/sh\ntrap '' TERM\n: > $1/trapped\nwhile :; do sleep 0.05; done\n")
    stubborn = f'exec = "{script}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "unlimited"'
    daemon = spawnd(f'a = {{ {stubborn} }}\nb = {{ {SLEEP} }}\nc = {{ {SLEEP}, status = "stop" }}')
    wait_until((daemon.folder / "out" / "trapped").exists, "the trap")
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("stopping")
    assert daemon.process is not None
    assert daemon.process.poll() is None
    assert daemon.stop() == 0


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_the_log_worker_comes_back_when_it_is_stopped(spawnd: Start, program: Program) -> None:
    script = program("talks", "#!/bin/sh\nwhile :; do echo word; sleep 0.02; done\n")
    daemon = spawnd(f'a = {{ exec = "{script}", {ENV}, stdout = log() }}')
    daemon.wait_log("a: word")
    daemon.ctl("stop", "log")
    before = daemon.log().count("a: word")
    wait_until(lambda: daemon.log().count("a: word") > before + 20, "more lines")


def test_an_unprivileged_user_cannot_speak_to_another_s_notification_socket(spawnd: Start, program: Program) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: two users")
    script = program(
        "forges",
        f"""#!{sys.executable} -IS
import socket, sys
try:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1", open(sys.argv[1]).read())
except PermissionError:
    sys.exit(7)
""",
    )
    daemon = spawnd(
        f"""
        a = {{ {SLEEP}, user = "daemon", ready = "notify" }}
        f = {{ exec = "{script}", arg = {{ "@/target" }}, task = true, status = "stop" }}
        """
    )
    daemon.wait_pid("a")
    (path,) = (daemon.runtime / "notify").glob("a.*/s")
    (daemon.folder / "target").write_text(str(path))
    result = daemon.ctl("start", "f")
    assert result.returncode == 1
    assert "exited with status 7" in result.stderr
    assert daemon.state("a") == "starting"


def test_a_service_without_room_for_its_descriptors_can_be_stopped(spawnd: Start) -> None:
    """A start that fails in an unforeseen way is a failed start, not a unit that hangs."""
    daemon = spawnd(
        f'a = {{ {SLEEP}, fd = {{ udp("127.0.0.1", 0, {{ netns = "spawnd-test-none" }}) }}, start_limit = 2 }}'
    )
    wait_until(lambda: daemon.state("a") in ("backoff", "failed"), "the failure")
    assert daemon.ctl("stop", "a").returncode == 0
    assert daemon.stop() == 0


def test_many_checks_at_once_are_one(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_pid("a")
    daemon.definitions.write_text("local x = 0 for i = 1, 2e7 do x = x + i end")
    clients = []
    for _ in range(40):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.socket))
        client.sendall(b'{"method":"io.spawnd.Check"}\0')
        clients.append(client)
    begun = time.monotonic()
    assert daemon.ctl("version").returncode == 0
    assert time.monotonic() - begun < HELD_UP
    assert len([child for child in children(daemon.pid) if child != pid]) <= 1
    for client in clients:
        client.close()


def test_resources_without_a_cgroup_are_said(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP}, memory_max = "64m", pids_max = 10 }}')
    daemon.wait_state("a", "running")
    assert "a: not enforced without a delegated cgroup: memory_max, pids_max" in daemon.log()


def test_reload_of_all_means_those_that_can(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP}, reload_signal = "WINCH" }}\nb = {{ {SLEEP} }}')
    daemon.wait_state("a", "running")
    assert daemon.ctl("reload", "all").returncode == 0
    assert daemon.ctl("reload", "b").returncode == 1


def test_a_stop_ends_the_check_of_a_reload(spawnd: Start) -> None:
    check = 'check = { "/bin/sh", "-c", "test ! -e @/out/slow || exec sleep 4242" }'
    daemon = spawnd(f'a = {{ {SLEEP}, {check}, {ENV}, reload_signal = "WINCH" }}')
    daemon.wait_state("a", "running")
    pid = daemon.wait_pid("a")
    (daemon.folder / "out" / "slow").touch()
    for _ in range(3):
        assert daemon.ctl("reload", "a", "--no-wait").returncode == 0
    wait_until(lambda: len(children(daemon.pid)) == 2, "one check beside the service")
    assert pid in children(daemon.pid)
    assert daemon.ctl("stop", "a").returncode == 0
    wait_until(lambda: children(daemon.pid) == [], "the end of the check")


def test_a_file_in_a_notification_is_stored_or_closed(spawnd: Start, program: Program) -> None:
    script = program(
        "stores",
        NOTIFY
        + """
import array
file = os.open("/etc/passwd", os.O_RDONLY)
def store(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
        s.sendmsg([text], rights, 0, os.environ["NOTIFY_SOCKET"])
if "kept" not in os.environ.get("LISTEN_FDNAMES", ""):
    store(b"FDSTORE=1\\nFDNAME=kept")
    store(b"STATUS=nothing to keep")
say("READY=1")
time.sleep(100000)
""",
    )
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", fdstore_max = 4, healthy_after = 0 }}')
    daemon.wait_state("s", "running")
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    pid = daemon.wait_pid("s")
    os.kill(pid, signal.SIGKILL)
    new = daemon.wait_pid("s", other_than=pid)
    daemon.wait_state("s", "running")
    assert os.readlink(f"/proc/{new}/fd/3") == "/etc/passwd"
    wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before, "no descriptor more")
    assert "kept" in daemon.ctl("fds", "s").stdout
