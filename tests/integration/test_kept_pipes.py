"""A process of a service keeps the lock of a pipe that spawnd has the other end of: spawnd goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests import held_pipe
from tests.daemon import Daemon, wait_until

Start = Callable[..., Daemon]
Program = Callable[[str, str], str]

pytestmark = pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")
SOON = 10.0  # seconds, on a busy machine
ROOT = Path(held_pipe.__file__).parents[1]
# A helper keeps the pipe of a descriptor from now on, and leaves its pid beside the program.
KEEP = f"""#!{sys.executable} -IS
import fcntl, os, sys, termios, time
sys.path.insert(0, "{ROOT}")
from tests import held_pipe
def wait_read(fd):
    while any(fcntl.ioctl(fd, termios.FIONREAD, bytes(4))):
        time.sleep(0.005)
def keep(fd):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        held_pipe.hold(fd)
    held_pipe.wait_held(pid)
    with open(f"{{os.path.dirname(sys.argv[0])}}/kept-{{pid}}", "w"):
        pass
"""


@pytest.fixture(autouse=True)
def _let_go(folder: Path, spawnd: Start) -> Iterator[None]:
    """End the helpers before spawnd is ended, which may wait for them."""
    yield
    for path in folder.glob("kept-*"):
        with suppress(ProcessLookupError):
            os.kill(int(path.name.removeprefix("kept-")), signal.SIGKILL)


def log_worker(daemon: Daemon) -> int:
    """The pid of the log worker, 0 where it does not run."""
    rows = json.loads(daemon.ctl("list", "--all", "--json").stdout)
    return next(row["pid"] or 0 for row in rows if row["name"] == "log")


def test_the_pipe_of_readiness(spawnd: Start, program: Program, folder: Path) -> None:
    script = program("s", KEEP + "keep(3)\ntime.sleep(100000)\n")
    daemon = spawnd(f's = {{ exec = "{script}", user = "root", ready = "fd" }}')
    wait_until(lambda: list(folder.glob("kept-*")), "the pipe to be kept")
    assert daemon.ctl("stop", "s", timeout=SOON).returncode == 0


def test_the_output_of_a_check(spawnd: Start, program: Program) -> None:
    script = program("check", KEEP + "os.write(1, b'no')\nwait_read(1)\nkeep(1)\nsys.exit(3)\n")
    more = 'arg = { "100000" }, user = "root", restart = "never"'
    daemon = spawnd(f's = {{ exec = "/bin/sleep", check = {{ "{script}" }}, {more} }}')
    daemon.wait_log("s: check: no")
    assert daemon.ctl("list", timeout=SOON).returncode == 0


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_the_output_that_is_kept(spawnd: Start, program: Program) -> None:
    script = program("s", KEEP + "os.write(2, b'one')\nkeep(2)\nsys.exit(3)\n")
    daemon = spawnd(f's = {{ exec = "{script}", user = "root", stderr = log(), restart = "never" }}')
    daemon.wait_log("exited with status 3")
    assert daemon.ctl("list", timeout=SOON).returncode == 0


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_an_exec_a_crash_of_the_log_worker_and_a_shutdown(spawnd: Start, program: Program) -> None:
    script = program("s", KEEP + "os.write(2, b'one')\nkeep(2)\nos.write(3, b'two')\nkeep(3)\ntime.sleep(100000)\n")
    talks = program("t", '#!/bin/sh\necho "here I am"\nexec sleep 100000\n')
    daemon = spawnd(
        f"""
        s = {{ exec = "{script}", user = "root", ready = "fd", stderr = log(), ready_fd = 3 }}
        t = {{ exec = "{talks}", env = {{ PATH = "/bin:/usr/bin" }}, stdout = log() }}
        """
    )
    daemon.wait_log("t: here I am")
    assert daemon.ctl("reexec", timeout=SOON).returncode == 0
    worker = log_worker(daemon)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: log_worker(daemon) not in (0, worker), "the next log worker")
    assert daemon.ctl("restart", "t", timeout=SOON).returncode == 0
    wait_until(lambda: daemon.log().count("t: here I am") == 2, "lines of the next log worker")
    assert daemon.ctl("shutdown", timeout=SOON).returncode == 0
    wait_until(daemon.ended, "the end of spawnd")
