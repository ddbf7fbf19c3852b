"""Forking without leaking the parent into the child."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

from supervisor.linux.signal_mask import block_all, default_all, set_mask, unblock_all

EXIT_CHILD_FAILED = 111  # as daemontools and s6 have it: the child got nowhere, temporary or not


def fork(child: Callable[[], object]) -> int:
    """Run `child` in a new process and return its pid.  Raises OSError where there is none to be had.

    All signals are blocked across the fork and stay so in the child, which sets them as
    it needs them: until its handlers are the default ones, a signal meant for it would
    run the parent's.  The child never comes back from here: it leaves through `exec` or
    `os._exit`, so that no buffer is written twice and no object of the parent is closed.
    """
    before = block_all()
    try:
        pid = os.fork()
        if pid == 0:
            _in_child(child)
    finally:
        set_mask(before)
    return pid


def _in_child(child: Callable[[], object]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        child()
    except BaseException:
        try:
            os.write(2, traceback.format_exc().encode(errors="replace"))
        except OSError:
            pass  # nobody is left to hear it; the exit status says it
    finally:
        os._exit(EXIT_CHILD_FAILED)


def default_signals() -> None:
    """For a child: every handler to the default, nothing blocked, nothing pending."""
    default_all()
    unblock_all()
