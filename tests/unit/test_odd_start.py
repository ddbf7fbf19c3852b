"""The set-up of the tests, for runs that were started with signals ignored or blocked."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.conftest import hear_signals
from tests.unit.process.forked import in_child

C_LIBRARY = 0b11 << 31  # signals 32 and 33: programs can neither ignore nor restore them
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGRTMIN + 1)


def masks() -> list[int]:
    """Return the masks of blocked and of ignored signals of a program that is started now."""
    text = subprocess.run(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], capture_output=True, check=True).stdout
    return [int(line.split()[1], 16) & ~C_LIBRARY for line in text.splitlines()]


def test_a_program_ignores_and_blocks_nothing() -> None:
    def start_oddly() -> list[list[int]]:
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTERM])
        before = masks()
        hear_signals()
        return [before, masks()]

    before, after = in_child(start_oddly)
    assert all(before)
    assert after == [0, 0]


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGQUIT])
def test_the_run_outlives_a_signal_that_it_ignored(signum: int) -> None:
    def hang_up() -> str:
        signal.signal(signum, signal.SIG_IGN)
        hear_signals()
        os.kill(os.getpid(), signum)
        return "lives"

    assert in_child(hang_up) == "lives"
