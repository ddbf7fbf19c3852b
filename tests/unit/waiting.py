"""Waiting in tests: for a condition, with a deadline, never for a time to pass."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from supervisor.loop.loop import Loop

DEADLINE = 60.0  # seconds; what takes longer has gone wrong, also on a busy machine
HELD_UP = 20.0  # seconds; an order that takes longer has been kept, also on a busy machine
LOOK_AGAIN = 0.002  # seconds, for what the kernel tells of in no other way than being asked


def pause_since(start: float) -> float:
    """Return how long to wait for the next look: the longer, the longer it has taken so far, up to 20 ms."""
    return max(LOOK_AGAIN, min((time.monotonic() - start) / 10, 10 * LOOK_AGAIN))


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until `condition` holds, for what can only be asked."""
    start = time.monotonic()
    pause = select.poll()
    while not condition():
        assert time.monotonic() < start + seconds, "the condition never came true"
        pause.poll(1000 * pause_since(start))


def wait_readable(fd: int, seconds: float = DEADLINE) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(seconds * 1000), "nothing to read came"


def read_until(fd: int, enough: Callable[[bytes], object], seconds: float = DEADLINE) -> bytes:
    """Return the data from `fd` until it is `enough`; its end never is."""
    end = time.monotonic() + seconds
    data = b""
    while not enough(data):
        wait_readable(fd, end - time.monotonic())
        chunk = os.read(fd, 65536)
        assert chunk, f"ended after {data[-200:]!r}"
        data += chunk
    return data


def fill(fd: int) -> None:
    """Write until there is no more room; `fd` blocks before and after."""
    os.set_blocking(fd, False)
    try:
        with suppress(BlockingIOError):
            while os.write(fd, b"x" * 4096):
                pass
    finally:
        os.set_blocking(fd, True)


def wait_exit(pid: int, seconds: float = DEADLINE) -> int:
    """Wait for the end of a child, reap it and return its status, negative for a signal."""
    pidfd = os.pidfd_open(pid)
    try:
        wait_readable(pidfd, seconds)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def child_process(run: Callable[[], object]) -> Iterator[int]:
    """A forked process that does `run` and exits with 0, or with 1 if that raises; killed and reaped in the end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            run()
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        with suppress(ChildProcessError):
            # raises where it is reaped: the pid may be another's
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def checked_loop() -> Iterator[Loop]:
    """A loop whose callbacks must let no exception out; the process's signals are as before in the end."""
    errors: list[BaseException] = []
    handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    loop = Loop(on_error=errors.append)
    try:
        yield loop
    finally:
        loop.close()
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)
    assert not errors, errors


def turn(loop: Loop, times: int = 1) -> None:
    """Let the loop go round; it does not wait."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run()


def run_until(loop: Loop, condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Run the loop until `condition` holds."""
    start = time.monotonic()
    timed_out = False

    def look() -> None:
        nonlocal timed_out
        timed_out = time.monotonic() > start + seconds
        if timed_out or condition():
            loop.stop()
        else:  # after a pause, as those that are waited for want the processor
            loop.call_later(pause_since(start), look)

    loop.call_soon(look)
    loop.run()
    assert not timed_out, "the condition never came true"
