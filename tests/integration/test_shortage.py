"""A spawnd without a free descriptor: it ends and starts nothing wrongly, and goes on once it has some again."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import BIN, Daemon, command_name, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import NOTE, module, notes
from tests.integration.processes import alive, links
from tests.integration.test_cgroups import pids_in, subtree
from tests.integration.test_life import SLEEP
from tests.integration.test_strays import DETACHES, is_gone, pids, wait_older, wait_stray

__all__ = ["subtree"]

Program = Callable[[str, str], str]
BACKOFF = 'healthy_after = 0, backoff = { first = "10ms", max = "50ms" }, start_limit = false'
ENV = f'env = {{ PATH = "/bin:/usr/bin" }}, {BACKOFF}'
MANY = 60  # descriptors that the next spawnd needs, for services or of their stores
STORES = f"""#!{sys.executable} -IS
import os, socket, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(os.environ["NOTIFY_SOCKET"])
for number in range({MANY}):
    socket.send_fds(sock, [b"FDSTORE=1\\nFDNAME=kept%d" % number], [os.pipe()[0]])
sock.send(b"READY=1")
time.sleep(100000)
"""
STUBBORN = """#!/bin/sh
setsid sh -c 'trap "" TERM; while :; do sleep 0.05; done' &
exec sleep 100000
"""


@contextmanager
def without_descriptors(daemon: Daemon) -> Iterator[None]:
    """Leave spawnd no number for a new descriptor; it keeps those that it has."""
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def with_one_descriptor(daemon: Daemon) -> Iterator[None]:
    """Leave spawnd one number for a new descriptor, which is that of a client's connection."""
    used = set(map(int, os.listdir(f"/proc/{daemon.pid}/fd")))
    free = next(number for number in range(len(used) + 1) if number not in used)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (free + 1, most))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("limit", [20, 32])
def test_a_start_with_too_few_descriptors_names_the_limit(folder: Path, limit: int) -> None:
    (folder / "a.lua").write_text('s = { exec = "/bin/sleep", arg = { "100000" } }')
    command = [BIN / "spawnd", "--config", folder / "a.lua", "--runtime-dir", folder / "run"]
    both = f"ulimit -n {limit}; exec " + shlex.join(map(str, command))
    ended = subprocess.run(["/bin/sh", "-c", both], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "; raise the limit of open files" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_stop_function_that_cannot_be_called_is_called_by_the_next_stop(spawnd: Start, folder: Path) -> None:
    functions = 'function start() note("start") end function stop() note("stop") end'
    daemon = spawnd(NOTE + module("a", functions))
    daemon.wait_state("a", "running")
    for _ in range(2):
        with with_one_descriptor(daemon):
            stop = daemon.ctl("stop", "a")
        assert stop.returncode == 1
        assert "stop requested; cannot " in stop.stderr
        assert "Too many open files" in stop.stderr
        assert daemon.state("a") == "failed"
        why = " ".join(daemon.ctl("why", "a").stdout.split())
        assert "its function stop could not " in why
        assert "Too many open files, so what its function start has made is still there" in why
        assert "then run `spawnctl stop a` again" in why
    assert daemon.log().count("a: failed: stop requested; cannot ") == 2
    assert daemon.ctl("stop", "a").returncode == 0
    assert daemon.state("a") == "stopped"
    assert notes(folder) == ["start", "stop"]


def test_a_stop_function_that_cannot_be_called_at_a_shutdown_is_called_once_more(spawnd: Start, folder: Path) -> None:
    functions = 'function start() note("start") end function stop() note("stop") end'
    daemon = spawnd(NOTE + module("a", functions))
    daemon.wait_state("a", "running")
    with without_descriptors(daemon):
        daemon.signal(signal.SIGTERM)
        daemon.wait_log("a: failed: shutdown; cannot ")
    wait_until(daemon.ended, "its end")
    assert notes(folder) == ["start", "stop"]


def test_a_crash_calls_stop_before_the_next_start_even_if_late(
    spawnd: Start, program: Program, folder: Path
) -> None:
    functions = 'function start() note("start") end function stop() note("stop") end'
    process = 'exec = "/bin/sleep" arg = { "100000" } healthy_after = 0 backoff = { first = "10ms", max = "50ms" }'
    daemon = spawnd(NOTE + module("a", f"{process} {functions}"))
    first = daemon.wait_running("a")
    with without_descriptors(daemon):
        os.kill(first, signal.SIGKILL)
        daemon.wait_log("a: killed by KILL; cannot ")
    daemon.wait_running("a", other_than=first)
    assert notes(folder) == ["start", "stop", "start"]


def test_a_stop_that_cannot_start_the_last_process_says_so(spawnd: Start, program: Program) -> None:
    keeps = 'kill_mode = "process", handover_signal = "USR1", backoff = { first = "1h", max = "1h" }'
    script = program("script", '#!/bin/sh\n[ "$SPAWND_LAST" = 1 ]\n')
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", {keeps} }}')
    daemon.wait_state("s", "backoff")
    for _ in range(2):
        with with_one_descriptor(daemon):
            stop = daemon.ctl("stop", "s")
        assert stop.returncode == 1
        assert "what it keeps was not ended: cannot " in stop.stderr
    assert daemon.ctl("stop", "s").returncode == 0


def take_over_with_too_little_room(daemon: Daemon) -> None:
    """Start a successor that may have fewer descriptors than there are to take over; it fails."""
    daemon.lose()
    daemon.again()
    most = len(links(daemon.pid))
    daemon.lose()
    daemon.prefix = ["/usr/bin/prlimit", f"--nofile={most - MANY // 2}"]
    daemon.start()
    wait_until(daemon.ended, "its end")
    assert daemon.process is not None
    assert daemon.process.returncode == 1


def test_stored_descriptors_for_which_there_is_no_room_are_not_lost(spawnd: Start, program: Program) -> None:
    daemon = spawnd(f's = {{ exec = "{program("stores", STORES)}", ready = "notify", fdstore_max = {MANY} }}')
    pid = daemon.wait_running("s")

    def stored() -> int:
        return daemon.ctl("fds", "s").stdout.count("kept")

    wait_until(lambda: stored() == MANY, "its store")
    take_over_with_too_little_room(daemon)
    assert "s: cannot be taken over now, and goes on: [Errno 24] Too many open files" in daemon.log()
    daemon.prefix = []
    daemon.again()
    assert daemon.pid_of("s") == pid
    assert stored() == MANY
    assert "Traceback" not in daemon.log()


def test_what_cannot_be_held_is_not_started_a_second_time(spawnd: Start) -> None:
    daemon = spawnd("".join(f"s{number} = {{ {SLEEP} }}\n" for number in range(MANY)))
    running = {f"s{number}": daemon.wait_running(f"s{number}") for number in range(MANY)}
    take_over_with_too_little_room(daemon)
    assert "cannot be taken over now, and goes on: [Errno 24] Too many open files" in daemon.log()
    assert all(map(alive, running.values()))
    daemon.prefix = []
    daemon.again()
    assert {name: row["pid"] for name, row in daemon.services().items()} == running


def test_leftovers_in_a_cgroup_end_before_the_next_start(subtree: Path, spawnd: Start, program: Program) -> None:
    settings = f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'
    daemon = spawnd(f'{settings} a = {{ exec = "{program("escapes", STUBBORN)}", {ENV} }}')
    first = daemon.wait_running("a")
    wait_until(lambda: command_name(first) == "sleep" and len(pids_in(subtree / "a")) >= 2, "its processes")
    others = set(pids_in(subtree / "a")) - {first}
    with without_descriptors(daemon):
        os.kill(first, signal.SIGKILL)
        daemon.wait_log("a: cannot read")
    daemon.wait_running("a", other_than=first)
    assert not others & set(pids_in(subtree / "a"))


def test_leftovers_in_a_cgroup_end_at_a_stop(subtree: Path, spawnd: Start, program: Program) -> None:
    """Their time is up while there is no descriptor to kill them with."""
    settings = f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'
    daemon = spawnd(f'{settings} a = {{ exec = "{program("escapes", STUBBORN)}", {ENV}, stop_timeout = "1s" }}')
    first = daemon.wait_running("a")
    wait_until(lambda: command_name(first) == "sleep" and len(pids_in(subtree / "a")) >= 2, "its processes")
    assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
    wait_until(lambda: not alive(first), "its end")
    with without_descriptors(daemon):
        daemon.wait_log("a: cannot write")
    daemon.wait_state("a", "stopped")
    wait_until(lambda: not (subtree / "a").exists(), "the end of its cgroup")


def test_strays_are_looked_for_again(spawnd: Start, program: Program, folder: Path) -> None:
    script = program("script", DETACHES.replace("@", str(folder)))
    daemon = spawnd(f's = {{ exec = "{script}", {ENV} }}')
    first = daemon.wait_running("s")
    stray = wait_stray(daemon, folder, 1)
    wait_older(stray)
    with without_descriptors(daemon):
        os.kill(first, signal.SIGKILL)
        daemon.wait_log("cannot read the marks of processes")
    second = daemon.wait_running("s", other_than=first)
    wait_until(lambda: is_gone(stray), "its end")
    assert alive(second)
    assert len(pids(folder)) >= 2
