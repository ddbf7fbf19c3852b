"""Reloads of the script: one at a time, and one more for the requests that came meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.process.cgroups import mount_point
from tests.unit.workers.reaper.scenario import until
from workers.reaper.options import Options
from workers.reaper.reaper import Reaper
from workers.reaper.reports import start_script


async def reaper_with(folder: Path, script: str) -> tuple[Reaper, Path]:
    """A reaper that was not started, and the file that `tell` of its script writes to."""
    said = folder / "said"
    path = folder / "reaper.lua"
    tell = f'function tell(text) local f = io.open("{said}", "a") f:write(text, "\\n") f:close() end\n'
    path.write_text(tell + script)
    loop = asyncio.get_running_loop()
    host = await start_script(str(path), loop)
    return Reaper(loop, Options(scopes=("/x.scope",), cgroup_root=mount_point()), host), said


def lines(said: Path) -> list[str]:
    return said.read_text().splitlines() if said.exists() else []


def test_reloads_never_overlap(tmp_path: Path) -> None:
    script = """
local running = 0
function reload()
  running = running + 1
  tell("begin " .. running)
  control_resolve("localhost:1")
  running = running - 1
  tell("end")
end
"""

    async def run() -> None:
        reaper, said = await reaper_with(tmp_path, script)
        for _ in range(5):
            reaper.reload()
        await until(lambda: lines(said).count("end") == 2)
        reaper.reload()
        await until(lambda: lines(said).count("end") == 3)
        assert lines(said) == ["begin 1", "end"] * 3
        await reaper.stop()

    asyncio.run(run())


def test_an_error_in_a_reload_is_the_end_of_that_one_alone(tmp_path: Path) -> None:
    async def run() -> None:
        reaper, said = await reaper_with(tmp_path, "function reload() tell('x') error('no') end")
        for number in range(1, 4):
            reaper.reload()
            await until(lambda number=number: len(lines(said)) == number)  # type: ignore[misc]
        await reaper.stop()

    asyncio.run(run())


def test_a_reload_that_nothing_can_resume_does_not_prevent_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        reaper, said = await reaper_with(tmp_path, "function reload() tell('x') coroutine.yield() end")
        for number in range(1, 4):
            reaper.reload()
            await until(lambda number=number: len(lines(said)) == number)  # type: ignore[misc]
        await reaper.stop()

    asyncio.run(run())


def test_a_script_without_it(tmp_path: Path) -> None:
    async def run() -> None:
        reaper, _ = await reaper_with(tmp_path, "")
        reaper.reload()
        await reaper.stop()

    asyncio.run(run())
