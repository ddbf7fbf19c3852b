"""pthread_sigmask(3), and sets of signals."""

from __future__ import annotations

import signal
from pathlib import Path

from supervisor.linux.signal_mask import SETTABLE, block_all, ignored, set_mask
from tests.unit.process.forked import in_child


def test_all_are_blocked_and_the_mask_before_comes_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        mask = block_all()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        set_mask(mask)
        assert blocked == signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_ignored_signals_are_those_of_the_kernel_and_the_ones_that_python_cannot_see() -> None:
    def look() -> tuple[int, int]:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, lambda _signum, _frame: None)
        row = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("SigIgn"))
        return ignored(), int(row.split()[1], 16)

    found, of_kernel = in_child(look)
    unseen = SETTABLE & ~sum(1 << number - 1 for number in signal.valid_signals())
    assert found == of_kernel | unseen
    assert found >> signal.SIGUSR1 - 1 & 1
    assert unseen.bit_count() <= 2
