"""Children that answer once, over a pipe and within a time limit, so that their blocking work delays nothing else."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.loop.loop import Loop
from supervisor.process.children import Children, Exit
from supervisor.process.fork import default_signals, fork

PIECE = 65536  # bytes per read of an answer

Answer = Callable[[int], object]
"""The work of the child: writes the answer to a descriptor, which it may close, and returns."""
Done = Callable[[bytes, bool], None]
"""Receives the answer and whether it came in time; a late answer may be incomplete."""


class AnsweringChild:
    """A child that answers; calls `done` once, from the loop, after `limit` seconds at the latest.

    Owns the pipe. Raises OSError, and then `done` is not called.
    """

    def __init__(self, loop: Loop, children: Children, answer: Answer, limit: float, done: Done) -> None:
        self._loop = loop
        self._done = done
        self._data = b""
        self._pid, self._fd = start_child(answer)
        children.register(self._pid, self)
        try:
            loop.watch(self._fd, select.EPOLLIN, lambda _events: self._receive())
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise
        self._timer = loop.limit_later(limit, self._too_long)

    def _receive(self) -> None:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, PIECE)
            except BlockingIOError:
                return
            self._data += data
            if not data:
                self._end(in_time=True)

    def _too_long(self) -> None:
        """Kill the child without waiting for it: it may be in a system call that never ends."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._end(in_time=False)

    def _end(self, in_time: bool) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._done(self._data, in_time)

    # as a child

    def died(self, pid: int) -> None:
        self._receive()

    def reaped(self, pid: int, exit: Exit) -> None:
        if self._fd >= 0:
            self._end(in_time=True)


def start_child(answer: Answer) -> tuple[int, int]:
    """Have a child answer; return its pid and the non-blocking end of the pipe from which to read the answer.

    The child has no other descriptor, so a child that hangs holds nothing else up. The caller owns the
    descriptor, and registers the child before it can be reaped. Raises OSError.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = fork(lambda: _be_child(write_end, answer))
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return pid, read_end


def _be_child(fd: int, answer: Answer) -> None:
    if fd > 0:
        close_range(0, fd - 1)
    close_range(fd + 1, LAST_DESCRIPTOR)
    os.set_blocking(fd, True)
    default_signals()
    answer(fd)
    os._exit(0)
