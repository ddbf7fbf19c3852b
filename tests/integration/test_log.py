"""`log()` without a journal: the log worker."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.linux.capabilities import has_effective
from supervisor.log.handler import JOURNAL_SOCKET
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.unit.process.requirements import needs_root
from workers.log.main import CAP_SYS_PTRACE, find_ids

pytestmark = pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")

Program = Callable[[str, str], str]
ENV = 'env = { PATH = "/bin:/usr/bin" }, stdout = log(), stderr = log()'


def log_worker(daemon: Daemon) -> dict[str, Any]:
    rows = json.loads(daemon.ctl("list", "--all", "--json").stdout)
    found: dict[str, Any] = next(row for row in rows if row["name"] == "log")
    return found


def test_lines_reach_the_log_and_are_kept(spawnd: Start, program: Program) -> None:
    script = program("talks", "#!/bin/sh\necho one\necho two >&2\nprintf three\nexec sleep 100000\n")
    daemon = spawnd(f's = {{ exec = "{script}", {ENV} }}\nq = {{ exec = "/bin/sleep", arg = {{ "100000" }} }}')
    daemon.wait_log("s: two")
    assert "s: one" in daemon.log()
    wait_until(lambda: daemon.ctl("logs", "s").stdout == "one\ntwo\nthree\n", "the kept output")
    assert daemon.ctl("logs", "s", "-n", "1").stdout == "three\n"
    assert daemon.ctl("logs", "q").returncode == 1
    assert "log" not in daemon.services()
    assert log_worker(daemon)["state"] == "running"


def test_nothing_is_lost_when_the_worker_is_killed(spawnd: Start, program: Program) -> None:
    script = program("counts", "#!/bin/sh\nn=0\nwhile :; do n=$((n+1)); echo line $n; sleep 0.01; done\n")
    daemon = spawnd(f's = {{ exec = "{script}", {ENV} }}')
    pid = daemon.wait_pid("s")
    for _ in range(5):
        worker = wait_until(lambda: log_worker(daemon)["pid"], "the worker")
        time.sleep(0.1)  # let it read something
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: log_worker(daemon)["pid"] not in (None, worker), "the next worker")  # noqa: B023
    wait_until(lambda: len(daemon.ctl("logs", "s", "-n", "10000").stdout.splitlines()) > 50, "50 lines")
    assert daemon.pid_of("s") == pid
    kept = [int(line.split()[1]) for line in daemon.ctl("logs", "s", "-n", "10000").stdout.splitlines()]
    missing = set(range(1, kept[-1] + 1)) - set(kept)
    # what the worker had read, and not yet kept, when it was killed: at most one line each time
    assert len(missing) <= 5


def test_a_flood_harms_nobody_and_the_service_is_not_blocked(spawnd: Start, program: Program) -> None:
    flood = program("floods", "#!/bin/sh\nyes flood | head -c 3000000\necho done > $1/done\nexec sleep 100000\n")
    quiet = program("quiet", "#!/bin/sh\nwhile :; do echo quiet; sleep 0.05; done\n")
    daemon = spawnd(f's = {{ exec = "{flood}", arg = {{ "@/out" }}, {ENV} }}\nq = {{ exec = "{quiet}", {ENV} }}')
    wait_until((daemon.folder / "out" / "done").exists, "the flood's end")
    wait_until(lambda: daemon.ctl("logs", "q").stdout.startswith("quiet\n"), "the other one")
    assert len(daemon.ctl("logs", "s", "-n", "1000000").stdout) <= 64 * 1024


def test_the_last_words_before_a_shutdown_are_logged(spawnd: Start, program: Program) -> None:
    script = program("says_bye", "#!/bin/sh\ntrap 'echo bye; exit 0' TERM\necho hi\nwhile :; do sleep 0.05; done\n")
    daemon = spawnd(f's = {{ exec = "{script}", {ENV} }}')
    daemon.wait_log("s: hi")
    assert daemon.stop() == 0
    assert "s: bye" in daemon.log()


LAST_WORDS = """
crashes = { exec = "/bin/sh", arg = { "-c", "printf crashing; exit 3" }, restart = "never", ENV }
killed = { exec = "/bin/sh", arg = { "-c", "printf dying; kill -9 $$" }, restart = "never", ENV }
task = { exec = "/bin/sh", arg = { "-c", "printf done" }, task = true, ENV }
stopped = { exec = "/bin/sh", arg = { "-c", "trap 'printf bye; exit' TERM; echo hi; while :;do sleep .05; done" }, ENV }
checked = { exec = "/bin/sleep", arg = { "100000" }, check = { "/bin/sh", "-c", "printf checked" }, ENV }
again = { exec = "/bin/sh", arg = { "-c", "printf begin; printf end$$; sleep 0.1; exit 1" }, start_limit = 2, ENV }
module("called", package.seeall)
function start() io.write("starting") end
function stop() io.write("stopping") end
"""


def test_last_words_without_a_newline_are_a_line(spawnd: Start) -> None:
    daemon = spawnd(LAST_WORDS.replace("ENV", ENV))
    for line in ("crashes: crashing", "killed: dying", "task: done", "checked: checked", "called: starting"):
        daemon.wait_log(f"info    {line}\n")
    daemon.wait_log("stopped: hi\n")
    assert daemon.ctl("stop", "stopped", "called").returncode == 0
    for line in ("stopped: bye", "called: stopping"):
        daemon.wait_log(f"info    {line}\n")
    daemon.wait_state("again", "failed")
    wait_until(lambda: len(re.findall(r"again: beginend\d+\n", daemon.log())) == 2, "one line of each process")
    assert len(daemon.ctl("logs", "again").stdout.splitlines()) == 2
    wait_until(lambda: daemon.ctl("logs", "called").stdout == "starting\nstopping\n", "two lines")


def test_the_end_of_a_line_that_is_longer_than_what_is_kept_is_shown(spawnd: Start) -> None:
    daemon = spawnd(
        'long = { exec = "/bin/sh", arg = { "-c", "head -c 200000 /dev/zero | tr \'\\\\0\' x; echo the end" },'
        f" task = true, {ENV} }}"
    )
    wait_until(lambda: daemon.ctl("logs", "long").stdout.endswith("xthe end\n"), "the end of the line")
    shown = daemon.ctl("logs", "long").stdout
    assert shown.startswith("…xxx")
    assert len(shown) > 60_000


REOPENS = """
plain = { exec = "/bin/sh", arg = { "-c", SCRIPT }, task = true, ENV }
other = { exec = "/bin/sh", arg = { "-c", SCRIPT }, task = true, user = "daemon", group = "daemon", ENV }
root = { exec = "/bin/sh", arg = { "-c", SCRIPT }, task = true, user = "root", group = "root", ENV }
"""
SCRIPT = """[[
  echo opened >> /dev/stdout || exit 3
  echo opened too > /dev/stderr || exit 4
  exec 2> /dev/stderr || exit 5
  echo by descriptor >&2
]]"""


def test_what_log_gives_can_be_opened_as_dev_stderr_by_a_service_of_any_user(spawnd: Start) -> None:
    daemon = spawnd(REOPENS.replace("SCRIPT", SCRIPT).replace("ENV", ENV))
    for name in ("plain", "other", "root"):
        daemon.wait_state(name, "done")
        for line in ("opened", "opened too", "by descriptor"):
            daemon.wait_log(f"{name}: {line}\n")


def test_a_change_of_group_is_followed(spawnd: Start) -> None:
    daemon = spawnd(f's = {{ exec = "/bin/sh", arg = {{ "-c", {SCRIPT} }}, task = true, {ENV} }}')
    daemon.wait_state("s", "done")
    daemon.definitions.write_text(daemon.definitions.read_text().replace("task", 'user = "daemon", task'))
    assert daemon.ctl("apply").returncode == 0
    assert daemon.ctl("restart", "s").returncode == 0
    wait_until(lambda: daemon.log().count("s: by descriptor\n") == 2, "the second run")


# who the log worker is

TICKS = 'exec = "/bin/sh", arg = { "-c", "while :; do echo tick $$; sleep 0.05; done" }, ' + ENV
KNOWN = "known-to-nobody-else"


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in lines)}


def has_in_memory(pid: int, text: bytes) -> bool:
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if "w" not in rights:
                continue
            first, last = (int(number, 16) for number in place.split("-"))
            memory.seek(first)
            if text in memory.read(last - first):
                return True
    return False


def wait_ticks(daemon: Daemon, name: str) -> None:
    """Until it is heard of anew."""
    before = daemon.log().count(f" {name}: tick")
    wait_until(lambda: daemon.log().count(f" {name}: tick") > before + 1, f"lines of {name}")
    assert "tick" in daemon.ctl("logs", name).stdout


@needs_root
def test_the_log_worker_is_nobody_else_and_has_nothing_of_spawnd(spawnd: Start) -> None:
    secret = f'exec = "/bin/sleep", arg = {{ "1000000" }}, env = {{ S = "{KNOWN}" }}'
    daemon = spawnd(f"t = {{ {TICKS} }}\ns = {{ {secret} }}")
    wait_ticks(daemon, "t")
    pid = log_worker(daemon)["pid"]
    uid, gid = find_ids() if has_effective(CAP_SYS_PTRACE) else (0, 0)
    found = status(pid)
    assert found["Uid"].split() == [str(uid)] * 4
    assert found["Gid"].split() == [str(gid)] * 4
    assert found["NoNewPrivs"] == "1"
    assert {found[key] for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert has_in_memory(daemon.pid, KNOWN.encode())
    assert not has_in_memory(pid, KNOWN.encode())


@needs_root
def test_the_log_worker_goes_on_whatever_happens_to_it_and_to_spawnd(spawnd: Start) -> None:
    daemon = spawnd(f't = {{ {TICKS} }}\nu = {{ {TICKS}, status = "stop" }}')
    service = daemon.wait_running("t")
    wait_ticks(daemon, "t")
    worker = log_worker(daemon)["pid"]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: log_worker(daemon)["pid"] not in (None, worker), "the next worker")
    wait_ticks(daemon, "t")
    assert daemon.ctl("reexec").returncode == 0
    wait_ticks(daemon, "t")
    assert daemon.ctl("start", "u").returncode == 0
    wait_ticks(daemon, "u")
    kept = daemon.ctl("logs", "t", "-n", "1000000").stdout.splitlines()
    daemon.lose()
    daemon.again()
    wait_ticks(daemon, "t")
    wait_ticks(daemon, "u")
    assert daemon.ctl("logs", "t", "-n", "1000000").stdout.splitlines()[: len(kept)] == kept
    assert daemon.pid_of("t") == service


@needs_root
def test_the_log_worker_of_an_ordinary_user(folder: Path) -> None:
    os.chmod(folder, 0o777)
    daemon = Daemon(folder, f"t = {{ {TICKS} }}")
    daemon.prefix = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups", "--inh-caps=-all", "--"]
    with daemon:
        wait_ticks(daemon, "t")
        worker = log_worker(daemon)["pid"]
        assert status(worker)["Uid"].split() == ["4242"] * 4
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: log_worker(daemon)["pid"] not in (None, worker), "the next worker")
        wait_ticks(daemon, "t")
