"""`graph --times` tells what the start order needed, whatever happens after it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.integration.conftest import Start

# db is ready at its third attempt; {0} is a folder that it may write to
DEFINITIONS = """
db = {{
  exec = "/bin/sh", env = {{ PATH = "/bin:/usr/bin" }}, ready = "fd", ready_fd = 3,
  arg = {{ "-c", "echo >> {0}/starts; [ $(wc -l < {0}/starts) -gt 2 ] || exit 1; echo >&3; exec sleep 1000" }},
}}
web = {{ exec = "/bin/sleep", arg = {{ "1000" }}, depends = "db", healthy_after = 0 }}
job = {{ exec = "/bin/true", task = true, status = "stop" }}
"""


def times(daemon: Daemon, *names: str) -> dict[str, dict[str, Any]]:
    rows = json.loads(daemon.ctl("graph", "--times", "--json", *names).stdout)
    return {row["name"]: {key: row[key] for key in ("started_s", "ready_s", "critical")} for row in rows}


def test_restarts_and_crashes_change_nothing(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(DEFINITIONS.format(folder / "out"))
    web = daemon.wait_running("web")
    boot = times(daemon)
    assert [name for name, row in boot.items() if row["critical"]] == ["db", "web"]
    assert boot["db"]["ready_s"] - boot["db"]["started_s"] > 0.2, "two failures, and the waits after them"
    assert daemon.ctl("restart", "db").returncode == 0
    os.kill(web, signal.SIGKILL)
    daemon.wait_running("web", other_than=web)
    assert daemon.ctl("start", "job").returncode == 0
    later = times(daemon)
    assert later.pop("job")["critical"] is False, "it was asked for after the boot"
    for name, row in boot.items():
        assert later[name] == pytest.approx(row, abs=0.001), "microseconds are lost in converting to Unix times"
    assert later.keys() == boot.keys()
    assert times(daemon, "job")["job"]["critical"] is True
    assert daemon.ctl("reexec").returncode == 0
    assert len(times(daemon)) == 3


def test_a_start_from_rest_is_measured_anew(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(DEFINITIONS.format(folder / "out"))
    daemon.wait_running("web")
    (boot,) = {row["since"] for row in json.loads(daemon.ctl("graph", "--times", "--json").stdout)}
    assert daemon.ctl("stop", "--cascade", "db").returncode == 0
    stopped = time.time()
    assert daemon.ctl("start", "web").returncode == 0
    rows = json.loads(daemon.ctl("graph", "--times", "--json").stdout)
    assert [row["name"] for row in rows if row["critical"]] == ["db", "web"]
    assert all(boot < stopped < row["since"] + 0.01 for row in rows), "the clocks are looked at one after the other"
