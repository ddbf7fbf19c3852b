"""pthread_sigmask(3)."""

from __future__ import annotations

import signal

from supervisor.linux.signal_mask import block_all, set_mask


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
