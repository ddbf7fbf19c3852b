"""Clients that mean no good or do not care, and services that take their time: neither holds up anybody else."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from supervisor.control.server import MAX_CLIENTS
from supervisor.varlink.messages import MAX_REQUEST
from tests.bench.measure import descriptors, pss_kb
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_life import NOTIFY, SLEEP
from tests.integration.test_reload_edges import ENV
from tests.unit.control.bench import encode
from tests.unit.varlink.lingering import lingering, pass_on
from tests.unit.waiting import HELD_UP, child_process

Program = Callable[[str, str], str]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user")
LIST = encode("io.spawnd.List")
# does not end, unless somebody made a file
STUBBORN = """#!/bin/sh
trap '[ -e $1/yield ] && exit 0' TERM
: > $1/trapped
while :; do sleep 0.05; done
"""


@pytest.fixture
def daemon(spawnd: Start) -> Daemon:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    daemon.wait_running("a")
    daemon.wait_running("b")
    return daemon


@contextmanager
def connected(daemon: Daemon, count: int = 1) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(daemon.socket))  # which waits where the backlog is full; with a time-out it would fail
            sock.settimeout(60)
            socks.append(sock)
        yield socks


def ask(daemon: Daemon, method: str, /, **parameters: object) -> dict[str, Any]:
    with connected(daemon) as (sock,):
        sock.sendall(encode(method, **parameters))
        return receive(sock)


def receive(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\0"):
        chunk = sock.recv(1 << 16)
        assert chunk, "closed without a reply"
        data += chunk
    value: dict[str, Any] = json.loads(data[:-1])
    return value


@contextmanager
def at_once() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < HELD_UP


# clients


def test_clients_that_never_read(daemon: Daemon) -> None:
    """Each costs what the kernel holds for it and one reply; the others are served all the while."""
    before = pss_kb(daemon.pid)
    with connected(daemon, 50) as socks:
        for sock in socks:
            sock.setblocking(False)
            try:
                while True:
                    sock.send(LIST * 1000)
            except BlockingIOError:
                pass
            with at_once():
                assert "parameters" in ask(daemon, "io.spawnd.List")
        assert pss_kb(daemon.pid) < before + 8 * 1024
    with at_once():
        assert daemon.ctl("list").returncode == 0


def test_a_client_that_dribbles(daemon: Daemon) -> None:
    with connected(daemon) as (sock,):
        for byte in LIST[:-1]:
            sock.sendall(bytes([byte]))
            with at_once():
                assert "parameters" in ask(daemon, "io.spawnd.GetVersion")
        sock.sendall(b"\0")
        assert len(receive(sock)["parameters"]["services"]) == 2


@pytest.mark.parametrize("data", [b" " * (MAX_REQUEST + 1), b" " * (5 * MAX_REQUEST) + LIST])
def test_calls_that_are_too_long(daemon: Daemon, data: bytes) -> None:
    fds = descriptors(daemon.pid)
    with connected(daemon) as (sock,):
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        reply = receive(sock)
        assert reply["error"] == "io.spawnd.Malformed"
        assert sock.recv(1) == b""
    wait_until(lambda: descriptors(daemon.pid) == fds, "no descriptor more")


def test_the_longest_call(daemon: Daemon) -> None:
    with connected(daemon) as (sock,):
        sock.sendall(b" " * (MAX_REQUEST - len(LIST)) + LIST)
        assert len(receive(sock)["parameters"]["services"]) == 2


def test_more_silent_clients_than_there_is_room_for(daemon: Daemon) -> None:
    """Of the same user, even: those who have been silent for longest make room."""
    fds = descriptors(daemon.pid)
    with descriptors_for(MAX_CLIENTS + 200), connected(daemon, MAX_CLIENTS + 100) as socks:
        with at_once():
            assert daemon.ctl("list").returncode == 0
        wait_until(lambda: descriptors(daemon.pid) <= fds + MAX_CLIENTS + 1, "room made by the oldest")
        assert socks[0].recv(1) == b""
        socks[-1].sendall(LIST)
        assert len(receive(socks[-1])["parameters"]["services"]) == 2
    wait_until(lambda: descriptors(daemon.pid) == fds, "no descriptor more")


@contextmanager
def descriptors_for(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count + 200, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_root
@pytest.mark.parametrize("group", ["control_group = 54321", ""])
def test_strangers_in_great_number(spawnd: Start, group: str) -> None:
    """Members of the control group, or of none: a thousand that connect and say nothing, or what is no call."""
    daemon = spawnd(f"_SUPERVISOR = {{ {group} }}\na = {{ {SLEEP} }}")
    daemon.wait_running("a")

    def crowd() -> None:
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(1234, 1234, 1234)
        with descriptors_for(1500), connected(daemon, 1000) as socks:
            for sock in socks[::2]:
                try:
                    sock.sendall(b"rubbish" * 100)
                except (BrokenPipeError, ConnectionResetError):
                    pass
            (daemon.folder / "out" / "connected").touch()
            signal.pause()

    with child_process(crowd):
        wait_until((daemon.folder / "out" / "connected").exists, "a thousand clients")
        with at_once():
            assert daemon.ctl("list").returncode == 0
            assert daemon.ctl("restart", "a").returncode == 0
    with at_once():
        assert daemon.ctl("list").returncode == 0


# descriptors that come along


@pytest.mark.parametrize("data", [b"x", LIST, b" " * 20_000])
def test_descriptors_do_not_get_in(daemon: Daemon, data: bytes) -> None:
    fds = descriptors(daemon.pid)
    mine, theirs = socket.socketpair()
    mine.settimeout(60)
    with mine, connected(daemon) as (sock,):
        pass_on(sock, theirs, data)
        assert receive(sock)["error"] == "io.spawnd.Malformed"
        assert mine.recv(1) == b""  # theirs is closed
    wait_until(lambda: descriptors(daemon.pid) == fds, "no descriptor more")


@needs_root
@pytest.mark.parametrize(("text", "flags"), [(b" ", 0), (LIST, 0), (b" ", socket.MSG_OOB)])
@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_stranger_s_descriptor_stops_nobody(daemon: Daemon, text: bytes, flags: int, hangs_up: bool) -> None:
    """Its close would wait for a minute, in whichever process it comes to pass."""

    def leave_it() -> None:
        os.setgroups([])
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with ExitStack() as stack:
            with connected(daemon, 3) as socks:
                for sock in socks:
                    pass_on(sock, stack.enter_context(lingering()), text, flags)
                    if hangs_up:
                        sock.close()
            (daemon.folder / "out" / "left").touch()
            signal.pause()  # whom it waits for is here, and does not read

    with child_process(leave_it):
        wait_until((daemon.folder / "out" / "left").exists, "what is left")
        for _ in range(5):
            with at_once():
                assert daemon.ctl("restart", "a").returncode == 0


# services


def test_a_slow_stop_holds_up_nobody(spawnd: Start, program: Program) -> None:
    script = program("stubborn", STUBBORN)
    daemon = spawnd(
        f"""
        slow = {{ exec = "{script}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "10m" }}
        a = {{ {SLEEP} }}
        b = {{ {SLEEP}, status = "stop" }}
        """
    )
    wait_until((daemon.folder / "out" / "trapped").exists, "the trap")
    daemon.wait_running("a")
    with connected(daemon, 20) as socks:
        for number, sock in enumerate(socks):
            sock.sendall(encode("io.spawnd.Restart" if number % 2 else "io.spawnd.Stop", names=["slow"]))
        wait_until(lambda: daemon.state("slow") == "stopping", "the stop")
        for command in ("list", "start b", "restart a", "stop b", "status a", "check", "stop a"):
            with at_once():
                assert daemon.ctl(*command.split()).returncode == 0, command
        assert daemon.state("slow") == "stopping"
        (daemon.folder / "out" / "yield").touch()
        assert daemon.ctl("signal", "TERM", "slow").returncode == 0
        for sock in socks:
            assert receive(sock)["parameters"]["results"][0]["name"] == "slow"


STATES = ("stopped", "waiting", "starting", "running", "reloading", "stopping", "backoff", "failed", "done")


@pytest.fixture
def every_state(spawnd: Start, program: Program) -> Daemon:
    """A service in each state, of its name."""
    reloads = program("reloads", NOTIFY + 'say("READY=1")\nsay("RELOADING=1")\ntime.sleep(100000)\n')
    stubborn = program("stubborn", STUBBORN)
    daemon = spawnd(
        f"""
        stopped = {{ {SLEEP}, status = "stop", control = true }}
        waiting = {{ {SLEEP}, depends = "starting", control = true }}
        starting = {{ {SLEEP}, ready = "notify", control = true }}
        running = {{ {SLEEP}, control = true }}
        reloading = {{ exec = "{reloads}", ready = "notify", control = true }}
        stopping = {{
          exec = "{stubborn}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "unlimited", control = true,
        }}
        backoff = {{ exec = "/bin/false", backoff = {{ first = "10m", max = "1h" }}, control = true }}
        failed = {{ exec = "/bin/false", start_limit = 1, control = true }}
        done = {{ exec = "/bin/true", task = true, control = true }}
        """
    )
    wait_until((daemon.folder / "out" / "trapped").exists, "the trap")
    ask(daemon, "io.spawnd.Stop", names=["stopping"], no_wait=True)
    for state in STATES:
        daemon.wait_state(state, state)
    return daemon


def yield_at_last(daemon: Daemon) -> None:
    (daemon.folder / "out" / "yield").touch()
    ask(daemon, "io.spawnd.Signal", names=["stopping"], signal=signal.SIGTERM)


@pytest.mark.parametrize(
    ("verb", "parameters"),
    [
        ("Start", {"no_wait": True}),
        ("Stop", {"no_wait": True}),
        ("Restart", {"no_wait": True}),
        ("Reload", {"no_wait": True}),
        ("Reset", {}),
        ("Signal", {"signal": 28}),
    ],
)
def test_orders_in_every_state(every_state: Daemon, verb: str, parameters: dict[str, object]) -> None:
    for state in STATES:
        with at_once():
            reply = ask(every_state, f"io.spawnd.{verb}", names=[state], **parameters)
        (row,) = reply["parameters"]["results"]
        assert (row["name"], type(row["ok"])) == (state, bool)
        assert row["ok"] or row["message"]
    with at_once():
        assert every_state.ctl("list").returncode == 0
    yield_at_last(every_state)
    with at_once():
        assert every_state.ctl("stop", "all").returncode == 0
    assert {row["state"] for row in every_state.services().values()} <= {"stopped", "done", "failed"}
    assert "unexpected" not in every_state.log()


def test_questions_in_every_state(every_state: Daemon) -> None:
    """Of a call: those that are up, or will be soon, do not answer here; of the others nobody listens."""
    for state in STATES:
        with at_once():
            (row,) = ask(every_state, "io.spawnd.Status", names=[state])["parameters"]["services"]
            assert row["state"] == state
            assert len(ask(every_state, "io.spawnd.Fds", name=state)["parameters"]["descriptors"]) == 4
            reply = ask(every_state, "io.spawnd.Call", name=state, method="a.b.Do", timeout=0.2)
        down = state in ("stopped", "waiting", "failed", "done")
        assert reply["error"] == ("io.spawnd.NotRunning" if down else "io.spawnd.TimedOut")
    yield_at_last(every_state)


# the owner's socket


@needs_root
def test_the_owner_has_a_socket_for_itself(daemon: Daemon) -> None:
    """It outlives an exec, with its connections, and is gone in the end."""
    path = daemon.runtime / "control.owner"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.settimeout(60)
        sock.sendall(encode("io.spawnd.GetVersion"))
        assert "parameters" in receive(sock)
        inode = path.stat().st_ino
        assert daemon.ctl("reexec").returncode == 0
        assert path.stat().st_ino == inode
        sock.sendall(encode("io.spawnd.GetVersion"))
        assert "parameters" in receive(sock)
    path.unlink()
    wait_until(path.exists, "the socket, bound anew")
    assert daemon.ctl("list").returncode == 0
    daemon.stop()
    assert not path.exists()
