"""Starts that hang in a file system whose server does not answer: they keep nobody else waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import fuse
from tests.daemon import command_name, wait_until
from tests.integration.conftest import Start
from tests.unit.waiting import HELD_UP

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }, user = "root"'
pytestmark = pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")


@pytest.mark.parametrize(
    ("opcode", "key"),
    [
        (fuse.OPEN, 'env_file = "{path}"'),
        (fuse.ACCESS, 'cwd = "{folder}"'),
        (fuse.ACCESS, 'chroot = "{folder}"'),
    ],
    ids=["env_file", "cwd", "chroot"],
)
def test_a_start_that_hangs_keeps_nobody_waiting(spawnd: Start, opcode: int, key: str) -> None:
    with fuse.unanswering(opcode) as path:
        keys = key.format(path=path, folder=os.path.dirname(path))
        daemon = spawnd(f"a = {{ {SLEEP}, {keys}, stop_timeout = '1s' }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        pid = daemon.pid_of("a")
        assert pid is not None
        wait_until(lambda: command_name(pid) == "launch", "a process that is being set up")
        for command in (("restart", "b"), ("reexec",), ("restart", "b"), ("list",)):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        wait_until(lambda: daemon.state("a") in ("stopping", "stopped"), "the stop")
    daemon.wait_state("a", "stopped")
    assert not Path(f"/proc/{pid}").exists()


def test_a_file_whose_server_does_not_answer_keeps_no_other_start_waiting(spawnd: Start) -> None:
    """Each close of any of its descriptors asks the server."""
    with fuse.unanswering(fuse.FLUSH) as path:
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ file("{path}", "r+") }} }}\nb = {{ {SLEEP} }}')
        first = daemon.wait_running("b")
        for command in (("restart", "b"), ("list",)):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        daemon.wait_running("b", other_than=first)
