"""A log worker in a process of its own, as spawnd starts it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import workers
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.linux.signal_mask import default_all
from supervisor.log.output import WorkerOutputs
from supervisor.process.child import run_worker
from supervisor.process.fork import fork
from tests.unit.waiting import DEADLINE, read_until, wait_exit, wait_readable

FEED = 3


class LogWorker:
    """Its log comes through a pipe; `executed` starts it in an interpreter of its own."""

    def __init__(self, outputs: WorkerOutputs, executed: bool = False) -> None:
        self.log_fd, log = os.pipe2(os.O_CLOEXEC)
        ((name, feed),) = outputs.feed()
        try:
            self.pid = fork(lambda: _become(name, feed, log, executed))
        finally:
            os.close(feed)
            os.close(log)

    def log_until(self, end: str, seconds: float = DEADLINE) -> list[str]:
        """Return the log, without time and level, up to a line that ends with `end`."""
        last = end.encode() + b"\n"
        data = read_until(self.log_fd, lambda data: data.endswith(last) or last in data, seconds)
        return [line.split(" ", 3)[3].lstrip() for line in data.decode().split("\n") if line]

    def read_some(self, data: bytes, size: int, seconds: float = DEADLINE) -> bytes:
        """`data` and a piece more of its log."""
        wait_readable(self.log_fd, seconds)
        return data + os.read(self.log_fd, size)

    def rest_of_log(self) -> list[str]:
        """Return the log up to its end."""
        data = b""
        while chunk := os.read(self.log_fd, 65536):
            data += chunk
        return [line.split(" ", 3)[3].lstrip() for line in data.decode().split("\n") if line]

    def stop_reading(self) -> None:
        os.close(self.log_fd)
        self.log_fd = -1

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait_exit(self) -> int:
        pid, self.pid = self.pid, 0
        return wait_exit(pid)

    def close(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                self.kill(signal.SIGKILL)
            self.wait_exit()
        if self.log_fd >= 0:
            os.close(self.log_fd)


def _become(name: str, feed: int, log: int, executed: bool) -> None:
    os.dup2(log, 2)
    os.dup2(feed, FEED)
    close_range(FEED + 1, LAST_DESCRIPTOR)
    default_all()
    os.environ.pop("JOURNAL_STREAM", None)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)
    if executed:
        os.set_inheritable(FEED, True)
        os.chdir(Path(workers.__file__).parents[1])
        os.execv(sys.executable, (sys.executable, "-m", "spawn_supervisor.worker", "log"))  # noqa: S606 - as spawnd does
    from workers.log.main import main

    run_worker(main)
