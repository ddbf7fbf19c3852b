"""The reaper with all controllers of cgroup2, and as it is installed: what it says is what the kernel says."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.vm.guest.installed import PATIENCE, PAUSE, call, journal, main_pid, run, shipped, started, wait_running

pytestmark = pytest.mark.apart

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = "+cpu +memory +pids"
USER = "cm4all-spawn-reaper"
SLICE = "system-cm4all.slice"
SCOPE = "bp-spawn.scope"
BELOW = f"/system.slice/{SLICE}/{SCOPE}"

# Each is run by a process that has entered the cgroup.
EAT = "eaten = [bytearray(1 << 20) for _ in range(1000)]"
# What it reads can be taken away again at once; a process whose memory cannot is slowed down for a minute.
READ = """
import tempfile
with tempfile.TemporaryFile(dir="/var/tmp", buffering=0) as file:
    file.truncate(48 << 20)
    while file.read(1 << 20):
        pass
"""
FORK = """
import os, time
for _ in range(20):
    try:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
    except OSError:
        pass
"""
SPIN = """
import time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
"""
Measure = Callable[..., tuple[dict[str, int | None], dict[str, Any], str]]

SCRIPT = """
function cgroup_released(cgroup)
  print(string.format("lua %s %d %d %d", cgroup.path, cgroup.memory_peak, cgroup.pids_peak, cgroup.memory_events_oom))
end
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "out").mkdir()
        (path / "out").chmod(0o777)
        (path / "reaper.lua").write_text(SCRIPT)
        yield path


@pytest.fixture(scope="module")
def scope() -> Iterator[Path]:
    """A scope below a slice of the check's own, with controllers; asked for before what runs in it."""
    top = ROOT / f"spawnd-check-{os.getpid()}.slice"
    path = top / "a.scope"
    path.mkdir(parents=True)
    try:
        for each in (ROOT, top, path):
            (each / "cgroup.subtree_control").write_text(CONTROLLERS)
        yield path
    finally:
        (top / "cgroup.kill").write_text("1")
        wait_until(lambda: "populated 0" in (top / "cgroup.events").read_text(), "an empty cgroup", PATIENCE)
        for each_folder, _, _ in os.walk(top, topdown=False):
            with suppress(FileNotFoundError):
                os.rmdir(each_folder)


@pytest.fixture(scope="module")
def measure(scope: Path, folder: Path) -> Iterator[Measure]:
    """`measure(program, {FILE: VALUE})`: what the kernel says of a program in a cgroup, the row and the log about it.

    The reaper is the same for all of them.
    """
    database = folder / "out" / "accounting.db"
    options = (
        f'scopes = {{ "/{scope.relative_to(ROOT)}" }}, delete_delay = "4s", script = "{folder}/reaper.lua",'
        f' database = "sqlite:{database}", spool = "{folder}/out/spool"'
    )
    reaper = (
        f'reaper = {{ worker = "reaper", user = "{USER}", group = "{USER}", options = {{ {options} }},'
        ' capabilities = { keep = { "dac_override" } }, control = true, ready = "notify" }'
    )

    def use(program: str, limits: dict[str, str] | None = None) -> tuple[dict[str, int | None], dict[str, Any], str]:
        before, said = len(read_rows(database)), len(daemon.log())
        cgroup = scope / "one"
        cgroup.mkdir()
        for name, value in (limits or {}).items():
            (cgroup / name).write_text(value)
        enter = f"open('{cgroup}/cgroup.procs', 'w').write('0')"
        subprocess.run([sys.executable, "-ISc", f"{enter}\n{program}"], check=False)
        wait_until(lambda: "populated 0" in (cgroup / "cgroup.events").read_text(), "its end", PATIENCE)
        kernel = read_settled(cgroup)
        wait_until(lambda: not cgroup.exists(), "its removal", PATIENCE)
        (row,) = wait_until(lambda: read_rows(database)[before:], "a row", PATIENCE, PAUSE)
        lines = ("one: cpu=", "lua ")
        wait_until(lambda: all(text in daemon.log()[said:] for text in lines), f"{lines} in the log", PATIENCE, PAUSE)
        return kernel, row, daemon.log()[said:]

    with Daemon(folder, reaper) as daemon:
        daemon.wait_log("reaper: running", PATIENCE)
        yield use


def read_settled(cgroup: Path) -> dict[str, int | None]:
    """Return what the kernel says once it says the same twice: the end of a process is charged after `populated 0`."""
    last: dict[str, int | None] = {}
    while last != (last := read_all(cgroup)):
        time.sleep(PAUSE)
    return last


def read_all(cgroup: Path) -> dict[str, int | None]:
    """Return the kernel's values by the columns of the accounting; None if it has no file for one."""
    return {
        "cpu_usage_usec": keyed(cgroup / "cpu.stat", "usage_usec"),
        "cpu_user_usec": keyed(cgroup / "cpu.stat", "user_usec"),
        "cpu_system_usec": keyed(cgroup / "cpu.stat", "system_usec"),
        "memory_peak": number(cgroup / "memory.peak"),
        "memory_events_high": keyed(cgroup / "memory.events", "high"),
        "memory_events_max": keyed(cgroup / "memory.events", "max"),
        "memory_events_oom": keyed(cgroup / "memory.events", "oom"),
        "pids_peak": number(cgroup / "pids.peak"),
        "pids_forks": number(cgroup / "pids.forks"),
        "pids_events_max": keyed(cgroup / "pids.events", "max"),
    }


def keyed(path: Path, key: str) -> int | None:
    values = dict(line.split() for line in path.read_text().splitlines())
    return int(values[key])


def number(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def read_rows(database: Path) -> list[dict[str, Any]]:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM accounting ORDER BY ended")]
    return []


def agree(kernel: dict[str, int | None], row: dict[str, Any]) -> None:
    assert {column: row[column] for column in kernel} == kernel


def test_an_out_of_memory_kill(measure: Measure) -> None:
    kernel, row, log = measure(EAT, {"memory.max": "33554432", "memory.swap.max": "0"})
    agree(kernel, row)
    assert row["memory_events_oom"] >= 1
    assert row["memory_events_max"] >= 1
    assert 30 << 20 <= row["memory_peak"] <= 33554432
    assert " memory=32M " in log
    assert f" oom={row['memory_events_oom']} " in log
    assert f"lua {row['path']} {row['memory_peak']} {row['pids_peak']} {row['memory_events_oom']}" in log


def test_memory_that_had_to_be_reclaimed(measure: Measure) -> None:
    kernel, row, log = measure(READ, {"memory.high": "16777216"})
    agree(kernel, row)
    assert row["memory_events_high"] >= 1
    assert f" reclaim={row['memory_events_high'] + row['memory_events_max']} " in log


def test_processes_and_those_that_were_refused(measure: Measure) -> None:
    kernel, row, log = measure(FORK, {"pids.max": "5"})
    agree(kernel, row)
    assert row["pids_peak"] == 5
    assert row["pids_events_max"] >= 1
    assert f" procs=5 procs_rejected={row['pids_events_max']}\n" in log


def test_processor_time(measure: Measure) -> None:
    kernel, row, log = measure(SPIN)
    agree(kernel, row)
    assert row["cpu_usage_usec"] > 300_000
    assert abs(row["cpu_user_usec"] + row["cpu_system_usec"] - row["cpu_usage_usec"]) <= 2, "each is rounded"
    assert row["memory_events_oom"] == row["pids_events_max"] == 0
    assert " oom=" not in log


# as it is installed


def test_under_systemd_with_the_definition_that_ships() -> None:
    """A real scope, which a spawner has made; the line in the journal is the line, and nothing else."""
    assert f'"{BELOW}"' in shipped("reaper")
    with started(shipped("reaper")):
        pid = wait_running("reaper")
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000002\n" in status
        run("systemd-run", "--quiet", "--scope", f"--slice={SLICE}", f"--unit={SCOPE}", "--property=Delegate=yes",
            "sh", "-c", SPAWNER)  # fmt: skip
        wait_until(lambda: lines_of_reaper("one:"), "the line", PATIENCE, PAUSE)
        (line,) = lines_of_reaper("one:")
        assert line["PRIORITY"] == "6"
        assert line["MESSAGE"].startswith("one: cpu=")
        assert " memory=" in line["MESSAGE"]
        wait_until(lambda: rows_of_reaper() >= 1, "a row", PATIENCE, PAUSE)
        assert main_pid()


# In the scope: a cgroup of its own for a process, as process spawners make them.
SPAWNER = f"""
cd {ROOT}{BELOW} && mkdir self one && echo $$ > self/cgroup.procs && echo '{CONTROLLERS}' > cgroup.subtree_control
sh -c 'echo $$ > one/cgroup.procs; exec sleep 0.1'
while [ -d one ]; do sleep 0.1; done
"""


def lines_of_reaper(beginning: str) -> list[dict[str, Any]]:
    return [entry for entry in journal("SYSLOG_IDENTIFIER=reaper") if entry["MESSAGE"].startswith(beginning)]


def rows_of_reaper() -> int:
    reply = call("Call", name="reaper", method="Totals", parameters={})["reply"]
    count: int = reply["all"]["cgroups"]
    return count
