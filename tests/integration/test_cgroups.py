"""Services in cgroups of their own, below a subtree that the test made."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from supervisor.places import cgroup2_mounts
from tests.daemon import PATIENCE, Daemon, command_name, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, links

Program = Callable[[str, str], str]
SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")


@pytest.fixture
def subtree() -> Iterator[Path]:
    """A cgroup of the test's own, to be asked for before `spawnd`, which has to end before it is removed."""
    with new_subtree() as path:
        yield path


@contextmanager
def new_subtree() -> Iterator[Path]:
    points = [point for point, root in cgroup2_mounts().items() if root == "/"]
    if not points:
        pytest.skip("no cgroup2 is mounted whole")
    path = Path(tempfile.mkdtemp(dir=points[0], prefix="spawnd-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        wait_until(lambda: _is_removed(path), "a removed cgroup")


def _is_removed(cgroup: Path) -> bool:
    """Kill the processes of a cgroup and remove it. A process that spawnd has just forked may enter it after a kill."""
    (cgroup / "cgroup.kill").write_text("1")
    with suppress(OSError):
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
    return not cgroup.exists()


def pids_in(cgroup: Path) -> list[int]:
    return [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]


def test_each_service_has_a_cgroup_and_leaves_none(subtree: Path, spawnd: Start) -> None:
    settings = f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'
    daemon = spawnd(f"{settings} a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    assert pids_in(subtree / "a") == [pid]
    assert daemon.ctl("stop", "b").returncode == 0
    assert not (subtree / "b").exists()
    os.kill(pid, signal.SIGKILL)
    new = daemon.wait_running("a", other_than=pid)
    assert pids_in(subtree / "a") == [new]
    assert daemon.services()["a"]["cpu_s"] is not None
    assert daemon.stop() == 0
    assert [entry.name for entry in subtree.iterdir() if entry.is_dir()] == []


def test_what_left_its_process_group_is_killed_before_the_next_start(
    subtree: Path, spawnd: Start, program: Program
) -> None:
    script = program("escapes", "#!/bin/sh\nsetsid sleep 424242 &\nexec sleep 100000\n")
    env = 'env = { PATH = "/bin:/usr/bin" }, healthy_after = 0'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ exec = "{script}", {env} }}')
    pid = daemon.wait_running("a")
    wait_until(lambda: len(pids_in(subtree / "a")) == 2, "two processes")
    wait_until(lambda: all(command_name(one) == "sleep" for one in pids_in(subtree / "a")), "two sleeps")
    other = next(one for one in pids_in(subtree / "a") if one != pid)
    os.kill(pid, signal.SIGKILL)
    daemon.wait_running("a", other_than=pid)
    assert not Path(f"/proc/{other}").exists()


def test_kill_mode_process_in_a_cgroup(subtree: Path, spawnd: Start, program: Program) -> None:
    script = program("escapes", "#!/bin/sh\nsetsid sleep 424242 &\nexec sleep 100000\n")
    env = 'env = { PATH = "/bin:/usr/bin" }, healthy_after = 0, kill_mode = "process"'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ exec = "{script}", {env} }}')
    pid = daemon.wait_running("a")
    wait_until(lambda: len(pids_in(subtree / "a")) == 2, "two processes")
    wait_until(lambda: command_name(pid) == "sleep", "exec")
    other = next(one for one in pids_in(subtree / "a") if one != pid)
    assert daemon.ctl("restart", "a").returncode == 0
    assert Path(f"/proc/{other}").exists()
    assert daemon.ctl("stop", "a").returncode == 0
    wait_until(lambda: not Path(f"/proc/{other}").exists(), "the end of the others")


def test_a_child_that_is_lost_in_its_set_up_is_the_only_one(subtree: Path, spawnd: Start) -> None:
    """It enters a cgroup that is frozen, and goes on once the next spawnd is there."""
    (subtree / "a").mkdir()
    (subtree / "a" / "cgroup.freeze").write_text("1")
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ {SLEEP} }}')
    pid = daemon.wait_pid("a")
    wait_until(lambda: pids_in(subtree / "a") == [pid], "the child in its cgroup")
    daemon.lose()
    assert command_name(pid) != "sleep"
    assert not any("run" in target for target in links(pid).values()), "neither lock nor state"
    daemon.again()
    assert daemon.pid_of("a") == pid
    (subtree / "a" / "cgroup.freeze").write_text("0")
    wait_until(lambda: command_name(pid) == "sleep", "its program")
    assert pids_in(subtree / "a") == [pid]
    assert daemon.log().count("Starting a") == 1
    assert daemon.ctl("stop", "a").returncode == 0
    assert not (subtree / "a").exists()


def test_what_a_service_left_that_died_with_spawnd_ends_before_the_next_start(
    subtree: Path, spawnd: Start, program: Program
) -> None:
    script = program("escapes", "#!/bin/sh\nsetsid sleep 424242 &\nexec sleep 100000\n")
    env = 'env = { PATH = "/bin:/usr/bin" }, healthy_after = 0'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ exec = "{script}", {env} }}')
    pid = daemon.wait_running("a")
    wait_until(lambda: len(pids_in(subtree / "a")) == 2, "two processes")
    (other,) = (one for one in pids_in(subtree / "a") if one != pid)
    daemon.lose()
    daemon.remember([other])
    os.kill(pid, signal.SIGKILL)
    daemon.again()
    new = daemon.wait_running("a", other_than=pid)
    assert not alive(other)
    assert new in pids_in(subtree / "a")


@pytest.mark.parametrize("how", ["crashes", "is stopped", "is killed"])
def test_all_of_a_service_that_a_loss_has_outlived_ends_with_it(
    subtree: Path, spawnd: Start, program: Program, how: str
) -> None:
    script = program("forks", "#!/bin/sh\ntrap '' TERM\nsleep 424242 &\nsetsid sleep 424242 &\nexec sleep 100000\n")
    env = 'env = { PATH = "/bin:/usr/bin" }, healthy_after = 0, stop_timeout = "300ms"'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ exec = "{script}", {env} }}')
    pid = daemon.wait_running("a")
    wait_until(lambda: len(pids_in(subtree / "a")) == 3, "three processes")
    wait_until(lambda: all(command_name(one) == "sleep" for one in pids_in(subtree / "a")), "three sleeps")
    old = pids_in(subtree / "a")
    daemon.lose()
    daemon.remember(old)
    daemon.again()
    assert daemon.pid_of("a") == pid
    if how == "crashes":
        os.kill(pid, signal.SIGKILL)
        daemon.wait_running("a", other_than=pid)
    else:
        assert daemon.ctl("restart" if how == "is killed" else "stop", "a").returncode == 0
    assert not any(map(alive, old))


def test_what_a_spawnd_left_of_which_nothing_is_known_ends_before_the_first_start(
    subtree: Path, spawnd: Start
) -> None:
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ {SLEEP} }}')
    pid = daemon.wait_running("a")
    daemon.lose()
    (daemon.runtime / "state").write_text("garbage")
    daemon.again()
    daemon.wait_log("is not used: it has no beginning")
    new = daemon.wait_running("a", other_than=pid)
    wait_until(lambda: pids_in(subtree / "a") == [new], "the end of the old one")


@pytest.mark.parametrize("how", ["loss", "exec"])
def test_a_cgroup_that_was_about_to_be_removed_is(subtree: Path, spawnd: Start, how: str) -> None:
    """Of a service that has stopped, with something in it that has not ended yet."""
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ {SLEEP} }}\nb = {{ {SLEEP} }}')
    pid = daemon.wait_running("b")
    daemon.wait_running("a")
    assert daemon.ctl("stop", "a").returncode == 0
    (subtree / "a").mkdir()
    with subprocess.Popen(["/bin/sleep", "100000"]) as other:
        try:
            (subtree / "a" / "cgroup.procs").write_text(str(other.pid))
            if how == "loss":
                daemon.lose()
                daemon.again()
            else:
                assert daemon.ctl("reexec").returncode == 0
            assert other.wait(20) == -signal.SIGKILL
        finally:
            other.kill()
    wait_until(lambda: not (subtree / "a").exists(), "the end of the cgroup")
    assert pids_in(subtree / "b") == [pid]


def test_resources_that_cannot_be_had_are_said(subtree: Path, spawnd: Start) -> None:
    if "memory" in (subtree.parent / "cgroup.controllers").read_text().split():
        pytest.skip("this host's cgroup2 has the controllers")
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ {SLEEP}, memory_max = "64m" }}')
    daemon.wait_state("a", "running")
    assert "memory_max needs the memory controller" in daemon.log()


def test_a_cgroup_that_is_none_prevents_the_start(folder: Path) -> None:
    daemon = Daemon(folder, f'_SUPERVISOR = {{ cgroup = "/tmp" }}\na = {{ {SLEEP} }}').start()
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    assert "/tmp" in daemon.log()


def test_what_a_start_of_a_module_has_left_ends_at_a_restart(subtree: Path, spawnd: Start) -> None:
    """There is no process of its own, and no function `stop` that would end it."""
    start = 'function start() if proc.fork() == 0 then proc.exec("/bin/sleep", { "424246" }) end end'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\nmodule("a", package.seeall) {start}')
    daemon.wait_state("a", "running")
    (first,) = pids_in(subtree / "a")
    assert daemon.ctl("restart", "a").returncode == 0
    (second,) = pids_in(subtree / "a")
    assert second != first
    assert not alive(first)
    assert daemon.ctl("stop", "a").returncode == 0
    wait_until(lambda: not (subtree / "a").exists(), "the end of the cgroup")

def test_processes_that_were_not_written_down_end_before_the_next_start(
    subtree: Path, spawnd: Start, program: Program
) -> None:
    """A spawnd that could not write has started them, and was lost in a pause of the service."""
    once = "#!/bin/sh\nexec sleep 100000\n"
    keys = 'backoff = { first = "1h", max = "1h", jitter = 0 }, start_limit = false, healthy_after = "1h"'
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\na = {{ exec = "{program("once", once)}", {keys} }}')
    first = daemon.wait_running("a")
    os.kill(first, signal.SIGKILL)
    daemon.wait_state("a", "backoff")
    daemon.lose()
    with subprocess.Popen(["/bin/sleep", "100000"]) as unknown:
        try:
            (subtree / "a" / "cgroup.procs").write_text(str(unknown.pid))
            daemon.again()
            assert unknown.wait(PATIENCE) == -signal.SIGKILL
        finally:
            unknown.kill()
    assert daemon.state("a") == "backoff"
