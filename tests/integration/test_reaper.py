"""The reaper under a real spawnd: another user, one capability, real cgroups, a real script."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground, ground

pytestmark = needs_root

SCRIPT = """
print("the script has begun")
function cgroup_released(cgroup)
  print("released " .. cgroup.path .. " of " .. tostring(cgroup.xattr.account) .. " in " .. cgroup.parent.path)
  assert(cgroup.cpu_total > 0 and math.abs(cgroup.cpu_user + cgroup.cpu_system - cgroup.cpu_total) < 1e-5)
end
function reload()
  print("reloaded")
end
"""


@pytest.fixture
def own() -> Iterator[Ground]:
    """Cgroups; to be asked for before `spawnd`, which has to end before they are removed."""
    with ground() as found:
        yield found


def definition(own: Ground, **more: str) -> str:
    options = {
        "scopes": f'{{ "{own.scope}/" }}',
        "script": '"@/reaper.lua"',
        "database": '"sqlite:@/usage/accounting.db"',
        "spool": '"@/out/spool"',
        "xattrs": '{ "account" }',
        **more,
    }
    written = ", ".join(f"{name} = {value}" for name, value in options.items())
    return f"""
reaper = {{
  worker = "reaper", user = "nobody", capabilities = {{ keep = {{ "dac_override" }} }},
  options = {{ {written} }}, control = true,
  ready = "notify", watchdog = "20s", reload_signal = "HUP", restart_signal = "RTMIN+2",
  healthy_after = 0, start_limit = false,
}}
"""


def released(daemon: Daemon, own: Ground, path: str) -> None:
    wait_until(lambda: f"info    {path}: cpu=" in daemon.log(), f"the line about {path}")
    assert not own.folder(path).exists()


def call(daemon: Daemon, method: str, parameters: str = "{}") -> dict[str, Any]:
    result = daemon.ctl("call", "reaper", method, parameters)
    assert result.returncode == 0, result.stderr
    reply: dict[str, Any] = json.loads(result.stdout)
    return reply


def prepare(folder: Path, script: str) -> None:
    (folder / "reaper.lua").write_text(script)
    (folder / "usage").mkdir()  # of the reaper's user alone: root reads no database that others can have put there
    shutil.chown(folder / "usage", "nobody")


def start(folder: Path, spawnd: Start, own: Ground, script: str = SCRIPT, **more: str) -> Daemon:
    prepare(folder, script)
    daemon = spawnd(definition(own, **more))
    daemon.wait_state("reaper", "running")
    return daemon


def use(own: Ground, path: str, account: str) -> None:
    os.setxattr(own.make(path), "user.account", account.encode())
    own.pass_through(path)


def test_it_never_sleeps_by_itself(own: Ground, folder: Path, spawnd: Start) -> None:
    """A call wakes one on demand, which is not idle after that: cgroups that run empty are no clients."""
    prepare(folder, SCRIPT)
    daemon = spawnd(definition(own) + 'reaper.status, reaper.idle_stop = "demand", "100ms"')
    daemon.wait_state("reaper", "asleep")
    assert call(daemon, "Status")["counters"]["released"] == 0
    wait_until(lambda: daemon.services()["reaper"]["busy"] == "it says so", "its veto")
    use(own, "one", "alice")
    released(daemon, own, "one")
    assert daemon.services()["reaper"]["state"] == "running"


def test_what_it_does_for_everybody(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own)
    pid = daemon.pid_of("reaper")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000002\n" in status, "CAP_DAC_OVERRIDE alone"
    use(own, "one", "alice")
    released(daemon, own, "one")
    daemon.wait_log(f"released {own.scope}/one of alice in {own.scope}")
    assert daemon.ctl("reload", "reaper").returncode == 0
    daemon.wait_log("reloaded")
    own.make("fresh")
    wait_until(lambda: call(daemon, "Status")["cgroups"] == 1, "a new cgroup")
    found = call(daemon, "Status")
    assert found["scopes"] == [{"path": own.scope, "present": True, "cgroups": 1}]
    assert found["counters"]["released"] == 1
    wait_until(lambda: call(daemon, "Status")["accounting"]["kept"] == 1, "a row")
    below = json.dumps({"below": own.scope})
    assert call(daemon, "Cgroups", below) == {
        "cgroups": [{"path": f"{own.scope}/fresh", "used": False, "empty": False}],
        "more": False,
    }
    assert "unexpected" not in daemon.log()


def test_a_database_that_refuses_rows_is_its_status(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own, script="")
    use(own, "one", "alice")
    wait_until(lambda: call(daemon, "Status")["accounting"]["kept"] == 1, "a row")
    with closing(sqlite3.connect(folder / "usage" / "accounting.db", isolation_level=None)) as connection:
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON accounting BEGIN SELECT RAISE(ABORT, 'not today'); END"
        connection.execute(refuse)
        use(own, "two", "alice")
        use(own, "three", "alice")
        text = re.compile(r"accounting waits since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 2 rows: ")
        wait_until(lambda: text.search(daemon.ctl("status", "reaper").stdout), "the status")
        assert text.search(daemon.ctl("list").stdout)
        assert "not today" in daemon.ctl("status", "reaper").stdout
        connection.execute("DROP TRIGGER refuse")
        wait_until(lambda: "accounting waits" not in daemon.ctl("status", "reaper").stdout, "the end of it")
    assert call(daemon, "Status")["accounting"]["kept"] == 3
    for line in daemon.log().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d ", line), f"a raw line of a library: {line}"


CONFINED = """
local function try(path, mode)
  local file, problem = io.open(path, mode)
  print("try " .. mode .. " " .. (file and "done" or problem))
  if file then file:write("x") file:close() end
end
try("@/etc/passwd", "w")
try("@/etc/new", "a")
try("@/etc/passwd", "r")
try("@/mine/log", "a")
try("@/one.log", "a")
try("@/usage/x", "w")
try("/dev/null", "w")
print("removal " .. tostring(select(2, os.remove("@/etc/passwd"))))
print("child " .. tostring(os.execute("echo x > @/etc/passwd 2> /dev/null") ~= 0))
print("program " .. tostring(io.popen("cat @/etc/passwd"):read("*a")))
"""


def test_it_writes_to_nothing_else(own: Ground, folder: Path, spawnd: Start) -> None:
    """Its capability opens every file to it; its script may read and run what it likes all the same."""
    for name in ("etc", "mine"):
        (folder / name).mkdir()
    (folder / "etc" / "passwd").write_text("root")
    (folder / "one.log").touch()
    writes = '{ "@/mine", "@/one.log" }'.replace("@", str(folder))
    daemon = start(folder, spawnd, own, CONFINED.replace("@", str(folder)), script_writes=writes)
    use(own, "one", "alice")
    released(daemon, own, "one")
    wait_until(lambda: call(daemon, "Status")["accounting"]["kept"] == 1, "a row")
    lines = [line.partition("info    ")[2] for line in daemon.log().splitlines()]
    denied = [line for line in lines if line.startswith("try ") and line.endswith("Permission denied")]
    if not denied:
        assert "cannot restrict what the reaper and its script write to: no Landlock" in daemon.log()
        pytest.skip("no Landlock on this host")
    assert [line.split()[1:3] for line in denied] == [["w", f"{folder}/etc/passwd:"], ["a", f"{folder}/etc/new:"]]
    assert [line for line in lines if line.startswith("try ") and line.endswith("done")] == [
        "try r done", "try a done", "try a done", "try w done", "try w done"
    ]  # fmt: skip
    assert f"removal {folder}/etc/passwd: Permission denied" in lines
    assert "child true" in lines
    assert "program root" in lines
    assert (folder / "etc" / "passwd").read_text() == "root"
    assert "no Landlock" not in daemon.log()


def test_killed_and_restarted_it_misses_nothing(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own)
    own.make("kept")
    before = daemon.pid_of("reaper")
    assert before is not None
    for turn, restart in enumerate((signal.SIGKILL, signal.SIGRTMIN + 2)):
        path = f"meanwhile-{turn}/inner"
        own.make(path)
        process = own.enter(path)
        os.kill(before, signal.SIGSTOP)
        process.end()
        if restart == signal.SIGKILL:
            os.kill(before, signal.SIGKILL)
        else:
            daemon.signal(restart)
            os.kill(before, signal.SIGCONT)
        before = daemon.wait_running("reaper", other_than=before)
        released(daemon, own, path)
        released(daemon, own, f"meanwhile-{turn}")
    assert own.folder("kept").exists()
    assert daemon.log().count("meanwhile-0/inner: cpu=") == 1


def test_killed_at_any_moment_each_cgroup_is_kept_once(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own, script="", delete_delay='"1ms"')
    total = 80
    for number in range(total):
        own.make(str(number))
        own.pass_through(str(number))
        if number % 10 == 9:
            pid = daemon.pid_of("reaper")
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: own.folder().stat().st_nlink == 2, "the end of all cgroups")
    assert daemon.log().count("reaper: killed by KILL") >= 2

    def rows() -> list[str]:
        with closing(sqlite3.connect(folder / "usage" / "accounting.db")) as connection, suppress(sqlite3.Error):
            return [path for (path,) in connection.execute("SELECT path FROM accounting")]
        return []

    wait_until(lambda: len(rows()) >= total, "all rows")
    assert sorted(rows()) == sorted(f"{own.scope}/{number}" for number in range(total))


def test_accounting_for_operators(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own)
    for number in range(3):
        use(own, f"a{number}", "alice")
    use(own, "b/inner", "bob")
    wait_until(lambda: call(daemon, "Status")["accounting"]["kept"] == 5, "five rows")

    def ask(*arguments: str) -> dict[str, Any]:
        result = daemon.ctl("accounting", "--json", *arguments)
        assert result.returncode == 0, result.stderr
        reply: dict[str, Any] = json.loads(result.stdout)
        return reply

    found = ask("--by", "xattr:account", "--sort", "cgroups")
    assert [(group["name"], group["cgroups"]) for group in found["groups"]] == [("alice", 3), (None, 1), ("bob", 1)]
    assert found["all"]["cgroups"] == 5
    below = ask(own.scope, "--top", "2", "--where", "account=alice", "--since", "1h")
    assert len(below["groups"]) == 2
    assert below["all"]["cgroups"] == 3
    assert ask("--until", "2020-01-01")["groups"] == []
    direct = ask("--database", f"sqlite:{folder}/usage/accounting.db")
    assert direct == ask()
    result = daemon.ctl("accounting", "--csv", own.scope, "--sort", "cgroups")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["cgroups"] for row in rows] == ["2", "1", "1", "1"]
    assert rows[0]["name"] == f"{own.scope}/b"
    text = daemon.ctl("accounting").stdout.splitlines()
    assert text[0].split() == ["NAME", "CGROUPS", "CPU", "USER", "SYSTEM", "MEMORY", "PROCS", "FORKS", "OOM"]
    assert text[-1].split()[:2] == ["TOTAL", "5"]
    assert "no such database" in daemon.ctl("accounting", "--database", "sqlite:/nonexistent.db").stderr


def test_a_script_that_fails(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own, 'function cgroup_released(cgroup) error("no " .. cgroup.path) end')
    use(own, "one", "alice")
    released(daemon, own, "one")
    daemon.wait_log(f"no {own.scope}/one")
    use(own, "two", "alice")
    released(daemon, own, "two")


def test_without_a_database(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own, database="nil")
    use(own, "one", "alice")
    released(daemon, own, "one")
    assert call(daemon, "Status")["accounting"] is None
    result = daemon.ctl("accounting")
    assert result.returncode == 1
    assert "its options have no database" in result.stderr


def test_what_keeps_it_from_starting_is_told(own: Ground, folder: Path, spawnd: Start) -> None:
    (folder / "reaper.lua").write_text("function broken(")
    daemon = spawnd(definition(own, delete_delay='"soon"') + definition(own).replace("reaper = {", "other = {", 1))
    daemon.wait_log("delete_delay: 'soon' is not a duration")
    daemon.wait_log("reaper.lua:1:")


def test_it_can_be_stopped_while_its_script_waits(own: Ground, folder: Path, spawnd: Start) -> None:
    (folder / "reaper.lua").write_text('local db = pg:new("host=/nowhere") print("waits") db:execute("SELECT 1")')
    daemon = spawnd(definition(own))
    daemon.wait_log("waits")
    assert daemon.ctl("stop", "reaper").returncode == 0
    assert "KILL" not in daemon.log()


def test_stopped_it_leaves_everything_as_it_is(own: Ground, folder: Path, spawnd: Start) -> None:
    daemon = start(folder, spawnd, own, delete_delay='"10s"')
    use(own, "one", "alice")
    wait_until(lambda: call(daemon, "Status")["empty"] == 1, "an empty one")
    assert daemon.ctl("stop", "reaper").returncode == 0
    assert own.folder("one").exists()
    assert subprocess.run(["ls", f"{folder}/out/spool"], capture_output=True, check=True).stdout == b""
