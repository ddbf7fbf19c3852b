"""`log()` without a journal: the log worker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.log.logger import JOURNAL_SOCKET
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start

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
