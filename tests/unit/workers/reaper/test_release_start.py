"""Releases from the start of the reaper on: what was there before it, and scopes that come and go."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import QUIET, Script, play, until
from workers.reaper import tree
from workers.reaper.reaper import Reaper

pytestmark = needs_root


# at the start


def test_what_ran_empty_while_nobody_looked_is_seen_to() -> None:
    def before(own: Ground) -> None:
        for path in ("used", "a/b/used", "fresh"):
            own.make(path)
        own.pass_through("used")
        own.pass_through("a/b/used")

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        await until(lambda: len(script.told) == 4)
        await asyncio.sleep(QUIET)
        assert sorted(script.paths()) == [f"{own.scope}/{path}" for path in ("a", "a/b", "a/b/used", "used")]
        assert own.folder("fresh").exists()

    play(scenario, before)


def test_an_unused_one_has_its_grace_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(own: Ground) -> None:
        own.make("never")
        own.make("late")

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        process = own.enter("late")
        await asyncio.sleep(0.3)
        assert own.folder("never").exists()
        await until(lambda: script.told)
        assert script.paths() == [f"{own.scope}/never"]
        assert own.folder("late").exists()
        own.make("new")
        await asyncio.sleep(1)
        assert own.folder("new").exists(), "made while we look: left alone"
        process.end()
        await until(lambda: len(script.told) == 2)

    monkeypatch.setattr(tree, "GRACE", 0.6)
    play(scenario, before)


def test_a_populated_one_that_was_there() -> None:
    def before(own: Ground) -> None:
        own.make("there")
        own.enter("there")

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        await asyncio.sleep(QUIET)
        assert not script.told
        own._processes[0].end()
        await until(lambda: script.told)

    play(scenario, before)


# scopes


def test_slices_and_scope_made_at_once() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for turn in range(1, 6):
            own.make("deep/er")
            own.pass_through("deep/er")
            await until(lambda turn=turn: len(script.told) == 2 * turn)  # type: ignore[misc]
            own.folder().rmdir()
            own.folder().parent.rmdir()
            if turn % 2:
                own.folder().parent.parent.rmdir()

    play(scenario)


def test_a_scope_that_goes_and_comes_back_with_what_is_in_it() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("one")
        await until(lambda: reaper.tree.members())
        own.folder("one").rmdir()
        own.folder().rmdir()
        own.make("one")
        own.pass_through("one")
        await until(lambda: script.told)
        assert reaper.tree.present() == {own.scope}

    play(scenario, Ground.make)


def test_what_is_beside_the_scope_is_nobodys_business() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        beside = own.make("../a.scope.d/one")
        await asyncio.sleep(0.1)
        assert not reaper.tree.members()
        own.make("one")
        own.pass_through("one")
        await until(lambda: script.told)
        assert "one" in os.listdir(beside.parent)

    play(scenario, Ground.make)
