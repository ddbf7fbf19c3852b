"""A loss of spawnd while a service hangs in an execve: the next spawnd waits for nobody, and goes on with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from supervisor.process.pids import read_process
from tests import fuse
from tests.daemon import process_state, wait_until
from tests.integration.conftest import Start
from tests.unit.waiting import HELD_UP

Program = Callable[[str, str], str]
PROGRAM = f"""#!{sys.executable} -ISs
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.open(sys.argv[1], os.O_RDWR)
print("opened", file=sys.stderr, flush=True)
signal.sigwait([signal.SIGUSR1])
os.execv("/bin/sleep", ["sleep", "100000"])
"""


def hangs(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.started < 0


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_service_that_hangs_in_an_execve_is_taken_over(spawnd: Start, program: Program) -> None:
    with fuse.unanswering(fuse.FLUSH) as path:
        script = program("executes", PROGRAM)
        daemon = spawnd(f'a = {{ exec = "{script}", arg = {{ "{path}" }}, user = "root", stderr = log() }}')
        pid = daemon.wait_running("a")
        daemon.wait_log("opened")
        daemon.lose()
        before = time.monotonic()
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: hangs(pid), "the execve")
        daemon.again()
        assert daemon.pid_of("a") == pid
        assert time.monotonic() - before < HELD_UP
        assert "cannot be taken over" not in daemon.log()
    # its execve has ended, and so has the server
    assert daemon.ctl("stop", "a").returncode == 0
    wait_until(lambda: process_state(pid) in ("", "Z"), "the end of the service")
