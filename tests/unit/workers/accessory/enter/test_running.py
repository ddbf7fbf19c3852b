from __future__ import annotations

import os
import signal

import pytest

from tests.unit.waiting import child_process, wait_exit
from workers.accessory.enter.running import end_like, hold_signals, wait_child

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTERM)
NO_TERMINAL = -1
GO = signal.SIGRTMIN  # comes after the others


def lead(command_ready: int, status: int) -> None:
    """Lead a session and wait for a command that leaves it to others to make its process group."""
    os.setsid()
    hold_signals()
    pid = os.fork()
    if pid == 0:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_DFL)  # whatever the test runner has for them
        os.write(command_ready, f"{os.getpid()} ".encode())
        signal.sigwait({GO})
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os._exit(status)
    os._exit(end_like(wait_child(pid, NO_TERMINAL)))


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_of_the_first_moment_is_not_lost(signum: int) -> None:
    """The command has no process group of its own yet, and holds all signals back."""
    read_end, write_end = os.pipe()
    try:
        with child_process(lambda: lead(write_end, 7)) as leader:
            command = int(os.read(read_end, 32))
            os.kill(leader, signum)
            os.kill(leader, GO)
            if signum == signal.SIGTSTP:
                assert os.waitpid(leader, os.WUNTRACED) == (leader, signal.SIGSTOP << 8 | 0x7F)
                assert os.getpgid(command) == command
                os.kill(leader, signal.SIGCONT)
                assert os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]) == 7
            else:
                assert wait_exit(leader) == -signum
    finally:
        os.close(read_end)
        os.close(write_end)
