"""Readiness and watchdog as helpers of real services say it, and the path that they say it on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start

Program = Callable[[str, str], str]
SAY = f"""#!{sys.executable} -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto("\\n".join(sys.argv[1:]).encode(), os.environ["NOTIFY_SOCKET"])
"""
ENV = 'env = { PATH = "/bin:/usr/bin" }'


def notify_path(pid: int) -> Path:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return Path(os.fsdecode(next(v for v in variables if v.startswith(b"NOTIFY_SOCKET=")).partition(b"=")[2]))


def test_a_helper_that_ends_at_once_says_that_its_service_is_ready(spawnd: Start, program: Program) -> None:
    """Many starts: spawnd sees a helper alive in some of them, dead or gone in others."""
    say = program("say", SAY)
    wrapper = program("wrapper", f"#!/bin/sh\n{say} READY=1 STATUS=up\nexec sleep 100000\n")
    lines = (f's{n} = {{ exec = "{wrapper}", {ENV}, ready = "notify", start_timeout = "1m" }}' for n in range(10))
    daemon = spawnd("\n".join(lines))
    for name in daemon.services():
        daemon.wait_running(name)


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="needs systemd-notify")
def test_systemd_notify_that_does_not_wait(spawnd: Start, program: Program) -> None:
    wrapper = program("wrapper", "#!/bin/sh\nsystemd-notify --no-block --ready\nexec sleep 100000\n")
    lines = (f's{n} = {{ exec = "{wrapper}", {ENV}, ready = "notify", start_timeout = "1m" }}' for n in range(10))
    daemon = spawnd("\n".join(lines))
    for name in daemon.services():
        daemon.wait_running(name)


def ready_service(spawnd: Start, program: Program) -> Daemon:
    say = program("say", SAY)
    wrapper = program("wrapper", f"#!/bin/sh\n{say} READY=1\nexec sleep 100000\n")
    return spawnd(f's = {{ exec = "{wrapper}", {ENV}, ready = "notify", healthy_after = 0 }}')


def test_the_path_of_the_socket_cannot_be_guessed_and_is_new_with_each_order_to_start(
    spawnd: Start, program: Program
) -> None:
    daemon = ready_service(spawnd, program)
    pid = daemon.wait_running("s")
    path = notify_path(pid)
    assert path.is_socket()
    assert str(path) not in Path("/proc/net/unix").read_text(errors="replace")
    assert len(path.parent.name.removeprefix("s.")) == 16
    os.kill(pid, 9)
    pid = daemon.wait_running("s", other_than=pid)
    assert notify_path(pid) == path, "clients of the socket may be left of the last one"
    assert daemon.ctl("stop", "s").returncode == 0
    assert not path.parent.exists()
    assert daemon.ctl("start", "s").returncode == 0
    assert notify_path(daemon.wait_running("s")) != path


def test_the_path_stays_over_an_exec_and_a_loss(spawnd: Start, program: Program) -> None:
    daemon = ready_service(spawnd, program)
    pid = daemon.wait_running("s")
    path = notify_path(pid)
    assert daemon.ctl("reexec").returncode == 0
    wait_until(daemon.answers, "an answer")
    assert path.is_socket()
    daemon.lose()
    stale = daemon.runtime / "notify" / "gone.xxxxxxxxxxxxxxxx"
    stale.mkdir()
    (stale / "s").touch()
    daemon.again()
    assert daemon.wait_running("s") == pid
    assert path.is_socket()
    wait_until(lambda: not stale.exists(), "the end of what nobody uses")
