"""A spawnd that is stopped, or frozen with its services, wakes up to queued input and due timers: nobody is harmed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import Daemon, process_state, wait_until
from tests.integration.conftest import Start
from tests.integration.test_cgroups import subtree

__all__ = ["subtree"]

Program = Callable[[str, str], str]
STOPPED_S = 4.0
SAY = f"""#!{sys.executable} -IS
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.01)
"""
FEEDS = SAY + "say('READY=1')\nwhile True:\n    say('WATCHDOG=1')\n    time.sleep(0.3)\n"
LATE_READY = SAY + "wait(sys.argv[1])\nsay('READY=1')\ntime.sleep(100000)\n"
LATE_FD = SAY + "wait(sys.argv[1])\nos.write(3, b'\\n')\ntime.sleep(100000)\n"
EXTENDS = f"""{SAY}
wait(sys.argv[1])
say('EXTEND_TIMEOUT_USEC=60000000')
open(sys.argv[1] + '.said', 'w')
time.sleep(100000)
"""


@contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    daemon.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: process_state(daemon.pid) == "T", "spawnd to be stopped")
        end = time.monotonic() + STOPPED_S
        yield
        wait_until(lambda: time.monotonic() > end, "the time itself, which is what is tested")
    finally:
        daemon.signal(signal.SIGCONT)


def test_what_was_said_during_a_stop_is_heard_before_time_limits_are_judged(
    spawnd: Start, program: Program, folder: Path
) -> None:
    go = folder / "out" / "go"
    limits = 'start_timeout = "2s", start_limit = 1, restart = "never"'
    daemon = spawnd(f"""
        fed = {{ exec = "{program("feeds", FEEDS)}", watchdog = "1s", ready = "notify", restart = "never" }}
        ready = {{ exec = "{program("ready", LATE_READY)}", arg = {{ "{go}" }}, ready = "notify", {limits} }}
        by_fd = {{ exec = "{program("by-fd", LATE_FD)}", arg = {{ "{go}" }}, ready = "fd", ready_fd = 3, {limits} }}
        more = {{ exec = "{program("extends", EXTENDS)}", arg = {{ "{go}" }}, ready = "notify", {limits} }}
    """)
    daemon.wait_running("fed")
    with stopped(daemon):
        go.touch()
        wait_until((folder / "out" / "go.said").exists, "EXTEND_TIMEOUT_USEC")
    daemon.wait_running("ready")
    daemon.wait_running("by_fd")
    assert daemon.state("more") == "starting"
    assert daemon.state("fed") == "running"
    daemon.wait_log("back later than meant")
    log = daemon.log()
    for word in ("not ready after", "watchdog missed"):
        assert word not in log, log
    assert daemon.ctl("stop", "more").returncode == 0


def test_a_service_that_is_silent_after_a_stop_is_still_found_out(spawnd: Start, program: Program) -> None:
    silent = SAY + "say('READY=1')\ntime.sleep(100000)\n"
    daemon = spawnd(
        f's = {{ exec = "{program("silent", silent)}", watchdog = "1s", ready = "notify", restart = "never" }}'
    )
    daemon.wait_running("s")
    with stopped(daemon):
        pass
    daemon.wait_state("s", "failed")
    assert "watchdog missed" in daemon.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")
def test_a_frozen_container_goes_on_as_it_was(subtree: Path, spawnd: Start, program: Program) -> None:
    """spawnd and its services do not run: nobody has said anything meanwhile, and nobody could have."""
    daemon = spawnd(
        f'fed = {{ exec = "{program("feeds", FEEDS)}", watchdog = "1s", ready = "notify", restart = "never" }}'
    )
    pid = daemon.wait_running("fed")
    for process in (daemon.pid, pid):
        (subtree / "cgroup.procs").write_text(str(process))
    (subtree / "cgroup.freeze").write_text("1")
    try:
        wait_until(lambda: "frozen 1" in (subtree / "cgroup.events").read_text(), "all of it to be frozen")
        end = time.monotonic() + STOPPED_S
        wait_until(lambda: time.monotonic() > end, "the time itself, which is what is tested")
    finally:
        (subtree / "cgroup.freeze").write_text("0")
    daemon.wait_log("back later than meant")
    later = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > later, "several periods of the watchdog")
    assert daemon.wait_running("fed") == pid
    assert "watchdog missed" not in daemon.log()
    for process in (daemon.pid, pid):
        (subtree.parent / "cgroup.procs").write_text(str(process))
