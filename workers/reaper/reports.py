"""Reports of released cgroups to the script: one call for each, many of them concurrent."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path
from typing import Protocol

from supervisor.log.logger import log
from workers.lua.host import LuaHost
from workers.lua.released import Released
from workers.lua.state import ScriptError
from workers.reaper.options import OptionsError
from workers.reaper.schedule import SLICE
from workers.reaper.statistics import Record, released

HANDLER = "cgroup_released"
RELOAD = "reload"


class Script(Protocol):
    """The script, as in `workers.lua.host`."""

    def has(self, name: str) -> bool: ...

    def end_lost(self) -> None: ...

    def call(self, name: str, released: Released | None = None) -> asyncio.Future[bool]: ...

    def close(self) -> None: ...


async def start_script(path: str, loop: asyncio.AbstractEventLoop) -> Script:
    """Execute the script. Raises OptionsError if that fails, or if one of its functions is not a function."""
    host = LuaHost(Path(path), log.log, loop)
    try:
        await host.execute()
        for name in (HANDLER, RELOAD):
            if (kind := host.kind(name)) not in ("function", "nil"):
                raise OptionsError(f"cannot use script {path!r}: {name} is a {kind}, not a function")
    except BaseException as error:
        host.close()
        if isinstance(error, ScriptError):
            raise OptionsError(str(error)) from error
        raise
    return host


class Reports:
    """Running and waiting handlers; owns the descriptors of their cgroups, each until its handler has ended.

    At most `max_calls` handlers run, and the others wait. So a slow database costs a limited amount of
    memory, and of descriptors for the parents that a handler looks at.
    """

    def __init__(self, script: Script | None, max_calls: int) -> None:
        self._script = script
        self._max_calls = max_calls
        self._waiting: deque[tuple[Record, int]] = deque()
        self._going_on: asyncio.Handle | None = None
        self._running: dict[asyncio.Future[bool], int] = {}

    @property
    def running(self) -> int:
        """Number of running handlers."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of waiting handlers."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Number of descriptors."""
        return len(self._running) + len(self._waiting)

    def is_heard(self) -> bool:
        """Whether the script has a handler now."""
        return self._script is not None and self._script.has(HANDLER)

    def add(self, record: Record, folder: int) -> None:
        """Report a cgroup; takes ownership of its folder's descriptor."""
        if not self.is_heard():
            os.close(folder)
        elif len(self._running) < self._max_calls:
            self._call(record, folder)
        else:
            self._waiting.append((record, folder))

    async def wait_done(self, seconds: float) -> None:
        """Wait up to a number of seconds until all handlers have ended."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (self._running or self._going_on) and (left := end - loop.time()) > 0:
            await (asyncio.wait(self._running, timeout=left) if self._running else asyncio.sleep(0))
        if self._running:
            log.warning("%d calls of %s have not ended", self.running + self.waiting, HANDLER)

    def _call(self, record: Record, fd: int) -> None:
        assert self._script is not None
        ended = self._script.call(HANDLER, released(record, fd))
        if ended.done():
            os.close(fd)
        else:
            self._running[ended] = fd
            ended.add_done_callback(self._ended)

    def _ended(self, ended: asyncio.Future[bool]) -> None:
        os.close(self._running.pop(ended))
        if self._waiting and self._going_on is None:
            self._going_on = asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Start waiting handlers: one answer of a database may have ended hundreds of handlers at once."""
        self._going_on = None
        loop = asyncio.get_running_loop()
        end = loop.time() + SLICE
        while self._waiting and len(self._running) < self._max_calls:
            self._call(*self._waiting.popleft())
            if loop.time() > end:
                self._going_on = loop.call_soon(self._go_on)
                return
