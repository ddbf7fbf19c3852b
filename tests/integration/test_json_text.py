"""Bytes that are not UTF-8 in JSON for other programs: the answers of spawnctl and the state file."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import BIN, Daemon, wait_until

SAYS = 'printf "caf\\\\351\\\\n" >&2; sleep 1000'
DEFINITIONS = f"""
s = {{ exec = "/bin/sh", arg = {{ "-c", {SAYS!r} }}, stderr = log() }}
m = {{ exec = "/nonexistent/m", start_limit = 1 }}
"""
COMMANDS = [
    ["list"], ["status", "all"], ["why", "all"], ["show", "s"], ["fds", "s"], ["logs", "s"], ["plan"], ["check"],
    ["graph"], ["status", "\udcff"], ["why", "\udcff"],
]  # fmt: skip


def ctl(daemon: Daemon, *arguments: str) -> str:
    command = [str(BIN / "spawnctl"), "--socket", str(daemon.socket), "--json", *arguments]
    result = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return (result.stdout or b"null\n").decode("ascii")


def values(text: str) -> list[Any]:
    """One value on several lines, or one on each."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def is_unicode(text: str) -> bool:
    """Whether every parser takes it: of these values nothing is written with a pair of surrogates."""
    return "\\ud" not in text


@pytest.fixture
def odd(folder: Path) -> Path:
    """A definition file with a name that is not UTF-8."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.lua"))
    path.write_text(DEFINITIONS)
    return path


def test_bytes_that_are_not_utf_8(folder: Path, odd: Path) -> None:
    with Daemon(folder, "", "--config", str(odd)) as daemon:
        pid = daemon.wait_running("s")
        daemon.wait_state("m", "failed")
        wait_until(lambda: values(ctl(daemon, "logs", "s"))[0]["lines"], "its output")
        for command in COMMANDS:
            text = ctl(daemon, *command)
            assert values(text)
            assert is_unicode(text), command
        (rows,) = values(ctl(daemon, "status", "s"))
        assert rows[0]["file"] == f"{folder}/caf\\xe9.lua"
        assert values(ctl(daemon, "logs", "s"))[0]["lines"] == ["caf\\xe9"]
        state = (daemon.runtime / "state").read_text("ascii")
        assert "dce9" in state, "the path is there"
        assert is_unicode(state)
        assert daemon.ctl("status", "\udcff").stderr == "spawnctl: no such service '\\xff'\n"
        daemon.lose()
        odd.write_text(DEFINITIONS.replace('"/nonexistent/m"', '"/bin/true", task = true'))
        daemon.again()
        assert daemon.pid_of("s") == pid
        assert values(ctl(daemon, "status", "s"))[0][0]["file"] == f"{folder}/caf\\xe9.lua"
        assert daemon.ctl("apply").returncode == 0
        assert daemon.state("m") == "done"
