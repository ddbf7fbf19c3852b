"""spawnctl as integration tests run it, a fork of a process that has loaded it, against the installed program."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import pytest

from tests import spawnctl
from tests.daemon import BIN, start_time, wait_until

ARGUMENTS = [
    ["list"],
    ["--json", "list"],
    ["list", "nope"],
    ["why", "web"],
    ["show", "web"],
    ["help"],
    ["nope"],
    ["call", "web", "Do", '{"x": "\u00e9\udcff"}'],
    ["start"],
]


def timeless(run: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """Return status and output of a run, in which numbers may be times."""
    output, errors = (re.sub(r" *[\d.]+", "N", text) for text in (run.stdout, run.stderr))
    return run.returncode, output, errors


@pytest.mark.parametrize("supervised", [True, False])
def test_it_does_what_the_program_does(path: str, supervise: Callable[..., None], supervised: bool) -> None:
    if supervised:
        supervise()
    for arguments in ARGUMENTS:
        command = [str(BIN / "spawnctl"), "--socket", path, *arguments]
        program = subprocess.run(command, capture_output=True, text=True, timeout=60)
        fork = spawnctl.run(["--socket", path, *arguments], 60)
        assert timeless(fork) == timeless(program)


def test_a_run_that_takes_too_long_is_killed(path: str, supervise: Callable[..., None]) -> None:
    supervise()
    with pytest.raises(subprocess.TimeoutExpired):
        spawnctl.run(["--socket", path, "monitor"], 0)
    wait_until(lambda: not forks(), "the end of the fork")
    assert spawnctl.run(["--socket", path, "list"], 60).returncode == 0, "others run as before"


def forks() -> list[int]:
    """The runs that the process has under way."""
    _, server = spawnctl._servers[os.getpid()]
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as file:
        return [pid for pid in map(int, file.read().split()) if start_time(pid) is not None]
