"""The limits of a service as the kernel enforces them, which takes the controllers of cgroup2."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.vm.guest.installed import PATIENCE

pytestmark = pytest.mark.apart

EAT = "import time; eaten = [bytearray(1 << 20) for _ in range(1000)]; time.sleep(1000)"
FORK = """
import os, time
for count in range(100):
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError as error:
        open("@/out/forked", "w").write(f"{count} {error.errno}")
        time.sleep(1000)
"""


@pytest.fixture
def subtree() -> Iterator[Path]:
    """A cgroup of the check's own; a spawnd that uses it has to end before."""
    path = Path(f"/sys/fs/cgroup/spawnd-check-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        (path / "cgroup.kill").write_text("1")
        wait_until(lambda: "populated 0" in (path / "cgroup.events").read_text(), "an empty cgroup", PATIENCE)
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "out").mkdir()
        (path / "out").chmod(0o777)
        yield path


def spawnd(folder: Path, subtree: Path, definitions: str) -> Daemon:
    settings = f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n'
    return Daemon(folder, settings + definitions.replace("@", str(folder)))


def python(program: str) -> str:
    return f'exec = "{sys.executable}", arg = {{ "-ISc", [[{program}]] }}'


def status(daemon: Daemon, name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = json.loads(daemon.ctl("status", "--json", name).stdout)
    return rows[0]


def test_limits_are_in_force(subtree: Path, folder: Path) -> None:
    limits = (
        'memory_max = "64m", memory_high = "48m", memory_swap_max = 0,'
        ' cpu_weight = 50, cpu_max = "50%", pids_max = 7, io_weight = 200'
    )
    with spawnd(folder, subtree, f'limited = {{ exec = "/bin/sleep", arg = {{ "1000" }}, {limits} }}') as daemon:
        daemon.wait_running("limited")
        files = ("memory.max", "memory.high", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max", "io.weight")
        found = {name: (subtree / "limited" / name).read_text().strip() for name in files}
        assert found == {
            "memory.max": str(64 << 20),
            "memory.high": str(48 << 20),
            "memory.swap.max": "0",
            "cpu.weight": "50",
            "cpu.max": "50000 100000",
            "pids.max": "7",
            "io.weight": "default 200",
        }
        assert daemon.services()["limited"]["memory_bytes"] > 0
        assert "needs the" not in daemon.log()


def test_a_kill_for_lack_of_memory_is_named(subtree: Path, folder: Path) -> None:
    definition = f'eater = {{ {python(EAT)}, memory_max = "48m", memory_swap_max = 0, restart = "never" }}'
    with spawnd(folder, subtree, definition) as daemon:
        wait_until(lambda: status(daemon, "eater")["state"] == "failed", "the end of eater", PATIENCE)
        assert status(daemon, "eater")["last_exit"] == "killed by KILL (out of memory)"


def test_processes_are_counted(subtree: Path, folder: Path) -> None:
    with spawnd(folder, subtree, f"forker = {{ {python(FORK)}, pids_max = 5 }}") as daemon:
        daemon.wait_running("forker")
        forked = folder / "out" / "forked"
        wait_until(forked.exists, "a fork that fails", PATIENCE)
        assert wait_until(forked.read_text, "what it says", PATIENCE) == f"4 {errno.EAGAIN}"
