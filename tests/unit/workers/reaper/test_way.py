"""The way to a cgroup from its scope's folder, and what its parent says of it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest

from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper import release
from workers.reaper.cgroup_calls import OPENED, look
from workers.reaper.node import Kind
from workers.reaper.reaper import Reaper
from workers.reaper.statistics import counters_of

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


def has_told(script: Script, count: int) -> bool:
    return len(script.told) == count


def test_controllers_are_asked_of_the_parent_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for those that run empty together, and each parent for its own."""
    asked: list[str] = []

    def answer(path: str, above: int | None) -> list[bytes]:
        asked.append(path)
        return [b"pids"]

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for attempt in range(10):  # they may run empty one after the other on a busy machine
            asked.clear()
            before = len(script.told)
            for number in range(20):
                own.make(f"{attempt}-{number}")
            await until(lambda: len(reaper.tree.members()) == 20)
            for number in range(20):
                own.pass_through(f"{attempt}-{number}")
            await until(partial(has_told, script, before + 20))
            assert set(asked) == {"."}
            if len(asked) < 20:
                break
        assert len(asked) < 20
        before = len(script.told)
        own.make("parent/one")
        own.pass_through("parent/one")
        await until(partial(has_told, script, before + 2))
        assert set(asked[-2:]) == {".", "parent"}

    monkeypatch.setattr(release, "read_controllers", answer)
    play(scenario, Ground.make)


def test_controllers_that_are_switched_on_are_read_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled: list[bytes] = []
    given: list[int] = []

    def look_at_given(way: str, above: int | None, flags: int, inode: int, table: Any, wanted: int, opened: Any) -> int:
        seen = look(way, above, flags, inode, table, wanted, opened)
        if seen & OPENED and way in ("a", "b"):
            given.append(wanted)
        return seen

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("a")
        own.make("b")
        await until(lambda: len(reaper.tree.members()) == 2)
        given.clear()
        own.pass_through("a")
        await until(lambda: given)
        enabled.append(b"pids")
        own.pass_through("b")
        await until(lambda: len(script.told) == 2)
        assert given == [counters_of([]), counters_of([b"pids"])]

    monkeypatch.setattr(release, "read_controllers", lambda _path, _above: list(enabled))
    monkeypatch.setattr(release, "look", look_at_given)
    play(scenario, Ground.make)
