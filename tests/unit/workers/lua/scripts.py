"""Running scripts in tests: on a loop of their own, with what they log kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from tests.unit.waiting import DEADLINE, pause_since
from workers.lua.host import LuaHost
from workers.lua.state import ScriptError

T = TypeVar("T")


class Hosted:
    """A host whose script has been executed, with the lines of its log."""

    def __init__(self, host: LuaHost) -> None:
        self.host = host
        self.printed: list[str] = []
        self.errors: list[str] = []
        self.others: list[str] = []

    def log(self, level: int, text: str) -> None:
        lines = {logging.INFO: self.printed, logging.ERROR: self.errors}.get(level, self.others)
        lines.append(text)


@asynccontextmanager
async def hosted(script: str) -> AsyncIterator[Hosted]:
    """Errors of handlers, and whatever the host did not expect, fail the test unless it takes them out of `errors`."""
    loop = asyncio.get_running_loop()
    host = LuaHost(script.encode(errors="surrogateescape"), lambda level, text: kept.log(level, text), loop)
    kept = Hosted(host)
    try:
        await host.execute()
        yield kept
    finally:
        host.close()
    assert kept.errors == []


def complete(work: Awaitable[T]) -> T:
    """Run it to its end, which has to come in time."""

    async def within() -> T:
        async with asyncio.timeout(DEADLINE):
            return await work

    return asyncio.run(within())


def prints(script: str) -> list[str]:
    """Return the output of a script's top level, without that of the host."""

    async def run() -> list[str]:
        async with hosted(script) as kept:
            return [line for line in kept.printed if not line.startswith("database ")]

    return complete(run())


def raises(script: str) -> str:
    """The first line of the error that a script ends with."""
    with pytest.raises(ScriptError) as caught:
        prints(script)
    return str(caught.value).removeprefix("cannot execute the script: ").split("\n")[0]


async def wait_for(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until something holds that the loop brings about."""
    async with asyncio.timeout(seconds):
        start = time.monotonic()
        while not condition():  # noqa: ASYNC110 (the condition is the test's own)
            await asyncio.sleep(pause_since(start))
