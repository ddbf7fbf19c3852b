"""A reaper on a scope of the test's own, in real cgroups."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.unit.process.cgroups import mount_point
from tests.unit.waiting import DEADLINE, wait_exit
from workers.lua.released import Released
from workers.reaper.options import Options
from workers.reaper.reaper import Reaper


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


class Script:
    """A script whose handler remembers what it was told, and ends at once or when `ends` says so."""

    def __init__(self) -> None:
        self.told: list[Released] = []
        self.running: list[asyncio.Future[bool]] = []
        self.ends_at_once = True

    def has(self, name: str) -> bool:
        return name == "cgroup_released"

    def call(self, name: str, released: Released | None = None) -> asyncio.Future[bool]:
        assert name == "cgroup_released"
        assert released is not None
        os.fstat(released.fd)
        self.told.append(released)
        ended = asyncio.get_running_loop().create_future()
        if self.ends_at_once:
            ended.set_result(True)
        else:
            self.running.append(ended)
        return ended

    def close(self) -> None:
        for ended in self.running:
            ended.cancel()

    def paths(self) -> list[str]:
        return [released.path for released in self.told]


async def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until it holds, and let the loop go round meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        await asyncio.sleep(0.002)


Scenario = Callable[[Ground, Reaper, Script], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario,
    before: Callable[[Ground], object] | None = None,
    more_scopes: tuple[str, ...] = (),
    **options: Any,
) -> None:
    """Run a scenario on a reaper that was started after `before`."""

    async def run(own: Ground) -> None:
        script = Script()
        errors: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        given = {"scopes": (own.scope, *more_scopes), "cgroup_root": str(own.root), "host": "test", **options}
        reaper = Reaper(loop, Options(**given), script)
        reaper.start()
        try:
            await scenario(own, reaper, script)
        finally:
            await reaper.stop()
        assert not errors, errors

    with ground() as own:
        if before is not None:
            before(own)
        asyncio.run(run(own))
