"""Reloads that cross other events: what is still stopping, what moves, what was stopped by hand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.daemon import BIN, Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_reload import SLEEP, reload
from tests.ports import free_port

ENV = 'env = { PATH = "/bin:/usr/bin" }'
# goes on for a second after TERM, and says in a file when it hears it
SLOW = (
    "exec = \"/bin/sh\", arg = { \"-c\", \"trap 'exec sleep 1' TERM; while :; do sleep 0.02; done\" }, "
    f'{ENV}, stop_timeout = "20s"'
)


def listens(daemon: Daemon, port: int) -> bool:
    """Whether spawnd itself holds a TCP socket that listens on the port."""
    inodes = set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    return any(os.readlink(f"/proc/{daemon.pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{daemon.pid}/fd"))


def tcp(port: int) -> str:
    return f'fd = {{ tcp("127.0.0.1", {port}) }}'


def test_a_dependency_that_goes_while_its_dependent_stops(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ exec = "/bin/true", task = true }}\nb = {{ {SLOW}, depends = "a" }}')
    daemon.wait_state("b", "running")
    reload(daemon, f'b = {{ {SLOW}, nice = 1 }}\nc = {{ {SLEEP}, depends = "b" }}')
    assert "unexpected error" not in daemon.log()
    daemon.wait_state("c", "running")
    assert list(daemon.services()) == ["b", "c"]


def test_a_conflict_that_goes_with_the_one_it_is_with(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP} }}\nb = {{ exec = "/nonexistent", start_limit = 1, conflicts = "a" }}')
    daemon.wait_state("b", "failed")
    reload(daemon, f"b = {{ {SLEEP}, start_limit = 1 }}\nc = {{ {SLEEP} }}")
    daemon.wait_state("b", "running")
    daemon.wait_state("c", "running")
    assert "unexpected error" not in daemon.log()


def test_a_removed_service_keeps_no_port_of_a_definition_that_never_came(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLOW} }}\nb = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    reload(daemon, f"a = {{ {SLOW}, {tcp(port)} }}\nb = {{ {SLEEP} }}")
    assert listens(daemon, port)
    reload(daemon, f"b = {{ {SLEEP} }}")
    wait_until(lambda: list(daemon.services()) == ["b"], "the end of a")
    assert not listens(daemon, port)


def test_a_port_that_comes_with_a_stop_is_not_held(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    reload(daemon, f'a = {{ {SLEEP}, {tcp(port)}, status = "stop" }}')
    daemon.wait_state("a", "stopped")
    assert not listens(daemon, port)


def test_two_reloads_while_the_old_process_stops(spawnd: Start) -> None:
    port, other = free_port(), free_port()
    daemon = spawnd(f"a = {{ {SLOW} }}")
    pid = daemon.wait_pid("a")
    reload(daemon, f"a = {{ {SLOW}, {tcp(port)} }}")
    both = f'fd = {{ tcp("127.0.0.1", {port}), tcp("127.0.0.1", {other}) }}'
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        reload(daemon, f"a = {{ {SLOW}, {both} }}")
        reload(daemon, f'a = {{ {SLOW}, {both}, description = "third" }}')
        assert "not changed" not in daemon.log()
        new = daemon.wait_running("a", other_than=pid)
        # 0, 1, 2, the shell's own and the table
        assert {"3", "4"} <= set(os.listdir(f"/proc/{new}/fd"))
        assert waiting.getpeername()[1] == port
        assert listens(daemon, port)
        assert listens(daemon, other)
    assert daemon.services()["a"]["description"] == "third"


def test_a_socket_moves_from_one_service_to_another(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLOW}, {tcp(port)} }}")
    daemon.wait_state("a", "running")
    with socket.create_connection(("127.0.0.1", port)):
        reload(daemon, f"a = {{ {SLOW} }}\nb = {{ {SLEEP}, {tcp(port)}, start_limit = 1 }}")
        daemon.wait_state("b", "running")
        assert "3" in os.listdir(f"/proc/{daemon.pid_of('b')}/fd")
        with socket.create_connection(("127.0.0.1", port)):
            pass
    assert "in use" not in daemon.log()


def test_what_is_removed_cannot_be_started_again(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLOW} }}\nb = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    reload(daemon, f"b = {{ {SLEEP} }}")
    daemon.ctl("start", "a", "--no-wait")
    daemon.ctl("restart", "a", "--no-wait")
    wait_until(lambda: list(daemon.services()) == ["b"], "the end of a")


def test_what_is_being_stopped_is_not_revived(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLOW}, restart_signal = "RTMIN+7" }}')
    daemon.wait_state("a", "running")
    assert daemon.ctl("stop", "a", "--no-wait").returncode == 0
    daemon.signal(signal.SIGRTMIN + 7)
    reload(daemon, f'a = {{ {SLOW}, nice = 1, restart_signal = "RTMIN+7" }}')
    daemon.wait_state("a", "stopped")


def test_a_service_started_by_hand_gets_its_new_definition(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f'a = {{ {SLEEP}, status = "stop" }}')
    assert daemon.ctl("start", "a").returncode == 0
    pid = daemon.wait_pid("a")
    reload(daemon, f'a = {{ {SLEEP}, status = "stop", {tcp(port)} }}')
    new = daemon.wait_pid("a", other_than=pid)
    wait_until(lambda: "3" in os.listdir(f"/proc/{new}/fd"), "its descriptor")


def test_a_reload_check_that_outlives_its_process_signals_nobody(spawnd: Start) -> None:
    check = "while test -e @/out/slow; do sleep 0.05; done; exit 0"
    daemon = spawnd(
        f'a = {{ {SLEEP}, check = {{ "/bin/sh", "-c", "{check}" }}, {ENV}, reload_signal = "TERM", healthy_after = 0 }}'
    )
    pid = daemon.wait_running("a")
    (daemon.folder / "out" / "slow").touch()
    command = [str(BIN / "spawnctl"), "--socket", str(daemon.socket), "reload", "a"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as reloading:
        wait_until(lambda: "reload of a" in daemon.log(), "the order")
        os.kill(pid, signal.SIGKILL)
        daemon.wait_log("a: killed by KILL")
        (daemon.folder / "out" / "slow").unlink()
        assert reloading.wait(60) == 1
        assert reloading.stderr is not None
        assert "not running any more" in reloading.stderr.read()
    daemon.wait_pid("a", other_than=pid)
    daemon.wait_state("a", "running")
    assert "killed by TERM" not in daemon.log()


@pytest.mark.parametrize("order", ["restart", "start"])
def test_two_that_conflict_never_wait_for_each_other(spawnd: Start, order: str) -> None:
    daemon = spawnd(f'a = {{ {SLOW} }}\nb = {{ {SLEEP}, conflicts = {{ "a" }}, status = "stop" }}')
    daemon.wait_state("a", "running")
    assert daemon.ctl("start", "b", "--no-wait").returncode == 0
    assert daemon.ctl(order, "a").returncode == 0
    assert (daemon.state("a"), daemon.state("b")) == ("running", "stopped")


@pytest.mark.parametrize("seed", ["0", "2"])
def test_sockets_that_two_services_swap(folder: Path, seed: str) -> None:
    """One of them in back-off, whose table changes at once, the other running, whichever comes first."""
    one, two = free_port(), free_port()
    failing = 'exec = "/bin/false", backoff = { first = "60s", max = "60s" }'
    daemon = Daemon(
        folder, f"a = {{ {failing}, {tcp(one)} }}\nb = {{ {SLEEP}, {tcp(two)} }}", env={"PYTHONHASHSEED": seed}
    )
    with daemon:
        daemon.wait_state("a", "backoff")
        daemon.wait_state("b", "running")
        pid = daemon.wait_pid("b")
        reload(daemon, f"a = {{ {SLEEP}, {tcp(two)} }}\nb = {{ {SLEEP}, {tcp(one)} }}\nc = {{ {SLEEP} }}")
        daemon.wait_state("c", "running")
        daemon.wait_state("a", "running")
        daemon.wait_pid("b", other_than=pid)
        daemon.wait_state("b", "running")
        assert "unexpected error" not in daemon.log()
        for name, port in (("a", two), ("b", one)):
            link = os.readlink(f"/proc/{daemon.pid_of(name)}/fd/3")
            assert socket_inode(port) == link, name


def socket_inode(port: int) -> str:
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
            return f"socket:[{fields[9]}]"
    raise AssertionError(f"nobody listens on {port}")


def test_the_same_address_with_other_options_waits_for_the_old_one(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLOW}, {tcp(port)} }}")
    daemon.wait_state("a", "running")
    other = f'fd = {{ tcp("127.0.0.1", {port}, {{ backlog = 7 }}) }}'
    reload(daemon, f"b = {{ {SLEEP}, {other}, start_limit = 1 }}")
    daemon.wait_log("needs an address that a is about to give up")
    daemon.wait_state("b", "running")
    assert list(daemon.services()) == ["b"]


def test_what_cannot_be_opened_leaves_nothing_open(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    reload(daemon, f'a = {{ {SLEEP} }}\nb = {{ {SLEEP}, {tcp(port)} }}\nc = {{ {SLEEP}, fd = {{ file("@/none") }} }}')
    assert "definitions not changed" in daemon.log()
    assert not listens(daemon, port)
    reload(daemon, f"a = {{ {SLEEP} }}\nb = {{ {SLEEP}, {tcp(port)} }}")
    daemon.wait_state("b", "running")


def test_a_restart_starts_what_is_needed(spawnd: Start) -> None:
    daemon = spawnd(f'db = {{ {SLEEP} }}\nweb = {{ {SLEEP}, depends = "db" }}')
    daemon.wait_state("web", "running")
    assert daemon.ctl("stop", "--alone", "db").returncode == 0
    assert daemon.state("web") == "running"
    assert daemon.ctl("restart", "web").returncode == 0
    assert (daemon.state("db"), daemon.state("web")) == ("running", "running")


def test_a_task_that_is_done_is_not_run_again_for_what_needs_it(spawnd: Start) -> None:
    script = "echo run >> @/out/runs"
    daemon = spawnd(
        f"""
        t = {{ exec = "/bin/sh", arg = {{ "-c", "{script}" }}, task = true }}
        a = {{ {SLEEP}, depends = "t" }}
        """
    )
    daemon.wait_state("a", "running")
    assert daemon.ctl("restart", "a").returncode == 0
    assert daemon.ctl("stop", "a").returncode == 0
    assert daemon.ctl("start", "a").returncode == 0
    assert (daemon.folder / "out" / "runs").read_text() == "run\n"


def test_stops_named_together_go_in_order(spawnd: Start) -> None:
    note = "trap 'sleep 0.2; echo NAME >> @/out/order; exit 0' TERM; while :; do sleep 0.02; done"
    line = f'NAME = {{ exec = "/bin/sh", arg = {{ "-c", "{note}" }}, {ENV}MORE }}\n'
    text = (
        line.replace("NAME", "db").replace("MORE", "")
        + line.replace("NAME", "app").replace("MORE", ', depends = "db"')
        + line.replace("NAME", "web").replace("MORE", ', after = { "app" }')
    )
    daemon = spawnd(text)
    daemon.wait_state("web", "running")
    assert daemon.ctl("stop", "all").returncode == 0
    assert (daemon.folder / "out" / "order").read_text().split() == ["web", "app", "db"]


def test_nobody_asks_after_one_that_is_gone(spawnd: Start) -> None:
    db = f'exec = "/bin/sh", arg = {{ "-c", "test -e @/out/flag && exec sleep 100000" }}, {ENV}, start_limit = 1'
    rest = f'd = {{ {db}, status = "stop" }}\na = {{ {SLEEP}, depends = "d", status = "stop" }}\n'
    daemon = spawnd(f'{rest}b = {{ {SLOW}, after = {{ "a" }} }}')
    (daemon.folder / "out" / "flag").touch()
    assert daemon.ctl("start", "a").returncode == 0
    daemon.wait_state("b", "running")
    reload(daemon, rest)  # b is still there when the order is learnt anew
    wait_until(lambda: "b" not in daemon.services(), "the end of b")
    (daemon.folder / "out" / "flag").unlink()
    assert daemon.ctl("stop", "--alone", "d").returncode == 0
    daemon.ctl("restart", "a", "--no-wait")
    daemon.wait_log("a: waits: needs d")
    daemon.wait_state("d", "failed")
    assert "unexpected error" not in daemon.log()
