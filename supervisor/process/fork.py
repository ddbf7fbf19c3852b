"""Forks that do not leak the parent into the child, and threads that are gone before the next fork."""

from __future__ import annotations

import errno
import os
import signal
import threading
import traceback
from collections.abc import Callable, Collection
from typing import TypeVar

from supervisor.linux.clone import fork_apart
from supervisor.linux.signal_mask import block_all, default_all, set_mask, unblock_all

EXIT_CHILD_FAILED = 111  # like in daemontools and s6: the child failed, temporarily or not

T = TypeVar("T")


def fork(child: Callable[[], object], kept: Collection[int] | None = None) -> int:
    """Run `child` in a new process and return its pid. Raises OSError if fork(2) fails.

    With `kept`, the process has none of the other descriptors but 0, 1 and 2, whose close might wait for a server
    that does not answer. Where tracing is forbidden, it has copies of all.

    All signals are blocked across the fork, and stay blocked in the child, which sets its mask itself. Before
    it has default handlers, a signal for the child would run a handler of the parent. The child never returns
    from here. It ends by `exec` or `os._exit`, so no buffer is written twice and no object of the parent is
    closed. A child that continues in Python begins with `close_inherited_log`.
    """
    before = block_all()
    try:
        pid = os.fork() if kept is None else _fork_apart(kept)
        if pid == 0:
            _in_child(child)
    finally:
        set_mask(before)
    return pid


def _fork_apart(kept: Collection[int]) -> int:
    try:
        return fork_apart(kept)
    except PermissionError:
        return os.fork()


def _in_child(child: Callable[[], object]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        child()
    except BaseException:
        try:
            os.write(2, traceback.format_exc().encode(errors="replace"))
        except OSError:
            pass  # stderr has no reader left; the exit status reports the failure
    finally:
        os._exit(EXIT_CHILD_FAILED)


def default_signals() -> None:
    """Set default handlers in a child, and unblock all signals, of which none is pending."""
    default_all()
    unblock_all()


def in_thread(function: Callable[[], T], name: str) -> T:
    """Return the result of `function`, called in a thread that is gone on return.

    So the next fork finds a single thread, and changes of the thread's attributes need not be undone. Raises
    the exceptions of `function`, and OSError if no thread can be started.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # to be raised in the caller
            errors.append(error)

    thread = threading.Thread(target=call, name=name)
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
    # join() returns when Python has finished the thread, a moment before the kernel has.
    while os.path.exists(f"/proc/self/task/{thread_id}"):
        os.sched_yield()
