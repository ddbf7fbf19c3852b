"""Waiting for the command, and passing on to it the signals that somebody sends to us."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

PASSED_ON = frozenset(
    {
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
        signal.SIGALRM, signal.SIGWINCH, signal.SIGCONT,
    }
)  # fmt: skip
WAITED_FOR = PASSED_ON | {signal.SIGCHLD}
SI_KERNEL = 0x80  # <asm-generic/siginfo.h>: of the terminal, which sends it to the command too


def hold_signals() -> set[signal.Signals]:
    """Hold back what is to be waited for, from before the fork on; returns the mask before."""
    mask: set[signal.Signals] = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)  # type: ignore[assignment]
    return mask


def wait_child(pid: int) -> int:
    """Wait for the end of the command; its exit status, negative for the signal that ended it."""
    while True:
        info = signal.sigwaitinfo(WAITED_FOR)
        if info.si_signo in PASSED_ON:
            if info.si_code != SI_KERNEL:
                with suppress(ProcessLookupError):
                    os.kill(pid, info.si_signo)
        elif (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)) is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def end_like(status: int) -> int:
    """The exit status; where a signal ended the command, it ends this process, too."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
        return 128 - status  # it was one that ends nobody
    return status
