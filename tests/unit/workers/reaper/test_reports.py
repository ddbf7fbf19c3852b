"""Calls of the script: many at once, not without end, each with its descriptor open."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.unit.workers.reaper.rows import record
from tests.unit.workers.reaper.scenario import Script, until
from workers.lua.released import Released
from workers.reaper.options import OptionsError
from workers.reaper.reports import Reports, start_script
from workers.reaper.schedule import SLICE


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def opened() -> int:
    return os.open("/", os.O_RDONLY)


def test_the_descriptor_is_open_until_the_handler_has_ended() -> None:
    async def run() -> None:
        script = Script()
        script.ends_at_once = False
        told = Reports(script, 10)
        fd = opened()
        told.add(record(), fd)
        await asyncio.sleep(0)
        assert is_open(fd)
        assert (told.running, told.waiting) == (1, 0)
        script.running[0].set_result(False)
        await until(lambda: not told.running)
        assert not is_open(fd)

    asyncio.run(run())


def test_more_than_so_many_wait() -> None:
    async def run() -> None:
        script = Script()
        script.ends_at_once = False
        told = Reports(script, 2)
        for number in range(5):
            told.add(record(f"/{number}"), opened())
        assert (told.running, told.waiting) == (2, 3)
        script.ends_at_once = True
        script.running[1].set_result(True)
        await until(lambda: not told.waiting)
        assert script.paths() == ["/0", "/1", "/2", "/3", "/4"]
        assert told.running == 1
        script.running[0].set_result(True)
        await told.wait_done(5)
        assert told.running == 0

    asyncio.run(run())


def test_without_a_handler_nothing_stays_open() -> None:
    async def run() -> None:
        for host in (None, NoHandler()):
            fd = opened()
            Reports(host, 10).add(record(), fd)
            assert not is_open(fd)

    asyncio.run(run())


class NoHandler(Script):
    def has(self, name: str) -> bool:
        return False


def test_handlers_that_do_not_end_are_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        script = Script()
        script.ends_at_once = False
        told = Reports(script, 10)
        told.add(record(), opened())
        await told.wait_done(0.05)
        assert told.running == 1
        script.running[0].set_result(True)
        await until(lambda: not told.running)

    asyncio.run(run())
    assert "1 calls of cgroup_released have not ended" in caplog.text


def test_a_real_script(tmp_path: Path) -> None:
    path = tmp_path / "reaper.lua"
    path.write_text("function cgroup_released(cgroup) seen = cgroup.path end")

    async def run() -> None:
        host = await start_script(str(path), asyncio.get_running_loop())
        fd = opened()
        Reports(host, 10).add(record(), fd)
        assert not is_open(fd)
        host.close()

    asyncio.run(run())


@pytest.mark.parametrize("text", [None, "function broken(", "error('no')"])
def test_a_script_that_cannot_be_executed(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "reaper.lua"
    if text is not None:
        path.write_text(text)

    async def run() -> None:
        with pytest.raises(OptionsError, match=r"reaper\.lua"):
            await start_script(str(path), asyncio.get_running_loop())

    asyncio.run(run())


@pytest.mark.parametrize("name", ["cgroup_released", "reload"])
@pytest.mark.parametrize(("value", "kind"), [("5", "number"), ("{}", "table"), ("'x'", "string")])
def test_a_function_that_is_none(tmp_path: Path, name: str, value: str, kind: str) -> None:
    path = tmp_path / "reaper.lua"
    path.write_text(f"{name} = {value}")

    async def run() -> None:
        with pytest.raises(OptionsError, match=rf"reaper\.lua': {name} is a {kind}, not a function$"):
            await start_script(str(path), asyncio.get_running_loop())

    asyncio.run(run())


class Slow(Script):
    """Its handler takes its time before it waits."""

    def call(self, name: str, released: Released | None = None) -> asyncio.Future[bool]:
        time.sleep(0.002)
        return super().call(name, released)


def test_hundreds_that_end_at_once_keep_nobody_from_having_a_turn() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        script = Slow()
        script.ends_at_once = False
        told = Reports(script, 50)
        for number in range(100):
            told.add(record(f"/{number}"), opened())
        for ended in script.running:
            ended.set_result(True)
        most = before = len(script.told)
        most = 0
        while told.waiting:
            await asyncio.sleep(0)
            most, before = max(most, len(script.told) - before), len(script.told)
        assert loop.is_running()
        assert most * 0.002 <= 2 * SLICE
        for ended in script.running[50:]:
            ended.set_result(True)
        await told.wait_done(5)

    asyncio.run(run())


def test_at_the_end_those_that_wait_are_called_too() -> None:
    async def run() -> None:
        script = Slow()
        script.ends_at_once = False
        told = Reports(script, 1)
        for number in range(30):
            told.add(record(f"/{number}"), opened())
        script.ends_at_once = True
        script.running[0].set_result(True)
        await told.wait_done(20)
        assert len(script.told) == 30

    asyncio.run(run())
