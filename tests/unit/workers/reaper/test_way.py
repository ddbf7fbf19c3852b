"""The way to a cgroup from its scope's folder."""

from __future__ import annotations

import os

from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper.node import Kind
from workers.reaper.reaper import Reaper

pytestmark = needs_root


def folders_of(reaper: Reaper) -> list[int | None]:
    """Of the scopes that there are."""
    return [node.folder for node in reaper.tree._root.subtree() if node.kind is Kind.SCOPE]


def test_a_scope_that_is_made_anew_is_reached_by_its_new_folder() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        (first,) = folders_of(reaper)
        assert first is not None
        known = os.fstat(first).st_ino
        own.folder().rmdir()
        await until(lambda: not folders_of(reaper))
        own.make("one")
        await until(lambda: reaper.tree.members())
        (second,) = folders_of(reaper)
        assert second is not None
        assert os.fstat(second).st_ino == own.folder().stat().st_ino != known
        own.pass_through("one")
        await until(lambda: script.told)

    before = open_numbers()
    play(scenario, Ground.make)
    assert open_numbers() == before


def test_without_a_descriptor_for_its_scope_a_cgroup_is_released_as_well() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for node in reaper.tree._root.subtree():
            node.close()
        own.make("one/inner")
        own.pass_through("one/inner")
        own.pass_through("one")
        await until(lambda: len(script.told) == 2)
        assert not own.folder("one").exists()

    play(scenario, Ground.make)
