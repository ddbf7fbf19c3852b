"""Releases while the script has no handler: no folder is opened for them."""

from __future__ import annotations

import re

import pytest

from supervisor.log.logger import set_level
from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper.reaper import Reaper

pytestmark = needs_root


def test_cgroups_are_deleted_and_logged_with_one_descriptor_each(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        script.has_handler = False
        for number in range(10):
            own.make(f"{number}/inner")
        await until(lambda: len(reaper.tree.members()) == 20)
        before = len(open_numbers())
        for number in range(10):
            own.pass_through(f"{number}/inner")
        await until(lambda: reaper.releases.waiting)
        assert len(open_numbers()) == before + reaper.releases.waiting
        await until(lambda: reaper.releases.counters.released == 20)
        assert len(open_numbers()) == before
        assert not own.folder("0").exists()
        assert not script.told

    set_level("info")
    with caplog.at_level("INFO"):
        play(scenario, Ground.make, delete_delay=0.2)
    lines = [line for line in caplog.messages if re.match(r"\d/inner: .*cpu=", line)]
    assert len(lines) == 10


def test_somebody_else_deletes_it_or_moves_in() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        script.has_handler = False
        before = open_numbers()
        for name in ("theirs", "back"):
            own.make(name)
            own.pass_through(name)
        await until(lambda: reaper.releases.waiting == 2)
        own.folder("theirs").rmdir()
        process = own.enter("back")
        await until(lambda: reaper.releases.counters.deleted_by_others == reaper.releases.counters.repopulated == 1)
        assert open_numbers() == before
        process.end()
        await until(lambda: reaper.releases.counters.released == 2)
        assert open_numbers() == before

    play(scenario, Ground.make, delete_delay=0.5)


def test_one_that_is_made_anew_is_another_one() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        script.has_handler = False
        for turn in range(1, 4):
            own.make("name")
            own.pass_through("name")
            await until(lambda: reaper.releases.waiting)
            own.folder("name").rmdir()
            own.make("name")
            await until(lambda turn=turn: reaper.releases.counters.deleted_by_others == turn)  # type: ignore[misc]
            assert own.folder("name").exists(), "it never had a process"
            own.pass_through("name")
            await until(lambda turn=turn: reaper.releases.counters.released == 2 * turn)  # type: ignore[misc]
            assert not own.folder("name").exists()

    play(scenario, Ground.make, delete_delay=0.3)


def test_a_handler_that_comes_meanwhile_is_called_for_what_runs_empty_then() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        script.has_handler = False
        own.make("early")
        own.make("late")
        own.pass_through("early")
        await until(lambda: reaper.releases.waiting)
        script.has_handler = True
        own.pass_through("late")
        await until(lambda: reaper.releases.counters.released == 2)
        assert script.paths() == [f"{own.scope}/late"]

    play(scenario, Ground.make, delete_delay=0.3)
