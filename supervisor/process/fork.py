"""Forking without leaking the parent into the child, and threads that are gone before the next fork."""

from __future__ import annotations

import errno
import os
import signal
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

from supervisor.linux.signal_mask import block_all, default_all, set_mask, unblock_all

EXIT_CHILD_FAILED = 111  # as daemontools and s6 have it: the child got nowhere, temporary or not

T = TypeVar("T")


def fork(child: Callable[[], object]) -> int:
    """Run `child` in a new process and return its pid.  Raises OSError where there is none to be had.

    All signals are blocked across the fork and stay so in the child, which sets them as
    it needs them: until its handlers are the default ones, a signal meant for it would
    run the parent's.  The child never comes back from here: it leaves through `exec` or
    `os._exit`, so that no buffer is written twice and no object of the parent is closed.
    A child that goes on in Python begins with `close_inherited_log`.
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


def in_thread(function: Callable[[], T], name: str) -> T:
    """Return the result of `function`, called in a thread that is gone when this returns.

    So the next fork finds a single thread, and nothing that a thread has changed of itself has to be changed
    back.  Raises what `function` raises, and OSError where no thread is to be had.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # to be raised where it was asked for
            errors.append(error)

    thread = threading.Thread(target=run, name=name)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be had") from error
    thread.join()
    _wait_gone(thread.native_id)
    if errors:
        raise errors[0]
    return results[0]


def _wait_gone(thread_id: int | None) -> None:
    # join() returns when Python is done with the thread, a moment before the kernel is.
    while os.path.exists(f"/proc/self/task/{thread_id}"):
        os.sched_yield()
