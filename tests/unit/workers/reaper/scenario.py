"""A reaper on a scope of the test's own, in real cgroups."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tests.unit.waiting import DEADLINE, pause_since
from tests.unit.workers.reaper.ground import Ground, ground
from workers.lua.released import Released
from workers.reaper.options import Options
from workers.reaper.reaper import Reaper

QUIET = 0.3  # seconds: longer than anything that is pending may take


class Script:
    """A script whose handler remembers what it was told, and ends at once or when `ends` says so."""

    def __init__(self) -> None:
        self.told: list[Released] = []
        self.running: list[asyncio.Future[bool]] = []
        self.ends_at_once = True
        self.has_handler = True

    def has(self, name: str) -> bool:
        return name == "cgroup_released" and self.has_handler

    def end_lost(self) -> None:
        pass

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
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, "the condition never came true"
        await asyncio.sleep(pause_since(start))


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
