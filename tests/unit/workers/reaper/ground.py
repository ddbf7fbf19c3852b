"""Names in the cgroup tree that are a test's own, with processes in them."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.unit.process.cgroups import mount_point
from tests.unit.waiting import DEADLINE, wait_exit


class Process:
    """A process in a cgroup; ended in the end."""

    def __init__(self, cgroup: Path) -> None:
        entered, told = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            with suppress(BaseException):
                (cgroup / "cgroup.procs").write_text("0")
                os.write(told, b"x")
                signal.pause()
            os._exit(1)
        os.close(told)
        assert os.read(entered, 1), "it did not get in"
        os.close(entered)

    def end(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            wait_exit(self.pid)
            self.pid = 0


class Ground:
    """Names of the test's own below the root of cgroup2; everything in there is removed in the end."""

    def __init__(self) -> None:
        self.root = Path(mount_point())
        self.top = f"/spawnd-test-reaper-{os.getpid()}-{uuid.uuid4().hex[:8]}.slice"
        self.scope = f"{self.top}/inner.slice/a.scope"
        self._processes: list[Process] = []

    def folder(self, path: str = "") -> Path:
        """Where a cgroup of the scope is to be seen."""
        return Path(f"{self.root}{self.scope}/{path}".rstrip("/"))

    def make(self, path: str = "") -> Path:
        folder = self.folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def enter(self, path: str) -> Process:
        """A process that stays in it."""
        process = Process(self.folder(path))
        self._processes.append(process)
        return process

    def pass_through(self, path: str) -> None:
        """A process that enters it and ends at once."""
        self.enter(path).end()

    def clean(self) -> None:
        """Also what a failure has left."""
        with ExitStack() as stack:
            stack.callback(self._remove)
            for process in self._processes:
                stack.callback(process.end)

    def _remove(self) -> None:
        end = time.monotonic() + DEADLINE
        for folder, _, _ in os.walk(f"{self.root}{self.top}", topdown=False):
            while os.path.isdir(folder):
                with suppress(OSError):
                    os.rmdir(folder)
                assert time.monotonic() < end, f"{folder} cannot be removed"


@contextmanager
def ground() -> Iterator[Ground]:
    own = Ground()
    try:
        yield own
    finally:
        own.clean()
