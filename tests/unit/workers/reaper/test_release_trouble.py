"""Releases where the kernel or a part of the reaper gives less than it should, and where many come at once."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import QUIET, Script, play, until
from workers.lua.released import Released
from workers.reaper import release, tree, watches
from workers.reaper.cgroup_calls import look
from workers.reaper.node import NOT_WATCHED, WatchedCgroup
from workers.reaper.reaper import Reaper

pytestmark = needs_root


def watches_of(fd: int) -> int:
    """How many the kernel has: a watch that is not ended keeps the inode of a cgroup that is gone."""
    return Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd")


# what the kernel does not give


def test_lost_events_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than the queue holds, while nobody reads them."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("old")
        own.make("gone")
        process = own.enter("old")
        await until(lambda: len(reaper.tree.members()) == 2)
        for _ in range(limit // 2 + 10):
            own.make("filler")
            own.folder("filler").rmdir()
        process.end()
        own.folder("gone").rmdir()
        own.make("new/inner")
        own.pass_through("new/inner")
        await until(lambda: len(script.told) == 3)
        assert reaper.tree.overflows == 1
        assert not reaper.tree.members()

    play(scenario, Ground.make)


def test_without_watches_it_looks_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        add, room = reaper.tree.watches.add, False
        monkeypatch.setattr(reaper.tree.watches, "add", lambda node: room and add(node))
        own.make("one/inner")
        await until(lambda: reaper.tree.unwatched == 2)
        own.pass_through("one/inner")
        await until(lambda: len(script.told) == 2)
        own.make("two")
        room = True
        await until(lambda: len(reaper.tree.members()) == 1 and not reaper.tree.unwatched)
        assert reaper.tree.members()[0].folder_watch != NOT_WATCHED
        own.pass_through("two")
        await until(lambda: len(script.told) == 3)

    monkeypatch.setattr(tree, "POLL_PAUSE", 0.05)
    play(scenario, Ground.make)


def test_without_descriptors_they_wait() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        reaper._limit = 1
        for number in range(5):
            own.make(f"{number}")
            own.pass_through(f"{number}")
        await until(lambda: len(script.told) == 5)

    play(scenario, Ground.make)


def test_neither_watches_nor_descriptors_are_left() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        before = len(reaper.tree.watches), len(os.listdir("/proc/self/fd"))
        for number in range(50):
            own.make(f"{number}/inner")
            own.pass_through(f"{number}/inner")
        await until(lambda: len(script.told) == 100)
        await until(lambda: not reaper.reports.running)
        assert (len(reaper.tree.watches), len(os.listdir("/proc/self/fd"))) == before
        assert watches_of(reaper.tree.watches.fileno()) == len(reaper.tree.watches)

    play(scenario, Ground.make)


def test_an_unexpected_error_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        seen = reaper.releases._seen

        def wrong(node: WatchedCgroup, *arguments: Any) -> None:
            if node.name == "bad":
                raise KeyError("a mistake of ours")
            seen(node, *arguments)

        monkeypatch.setattr(reaper.releases, "_seen", wrong)
        for name in ("bad", "good"):
            own.make(name)
            own.pass_through(name)
        await until(lambda: script.told)
        own.make("later")
        own.pass_through("later")
        await until(lambda: len(script.told) == 2)

    play(scenario, Ground.make)
    assert "a mistake of ours" in caplog.text


def test_an_unexpected_error_after_the_deletions_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        call = script.call

        def wrong(name: str, released: Released | None = None) -> asyncio.Future[bool]:
            if not script.told and released is not None:
                script.told.append(released)
                raise KeyError("a mistake of ours")
            return call(name, released)

        monkeypatch.setattr(script, "call", wrong)
        before = len(reaper.tree.members())
        for name in "abc":
            own.make(name)
            own.pass_through(name)
        await until(lambda: len(script.told) == 3)
        await until(lambda: len(reaper.tree.members()) == before)
        assert reaper.releases.counters.released == 3
        assert reaper.releases.waiting == 0

    play(scenario, Ground.make, delete_delay=0.3)
    assert caplog.text.count("unexpected error with cgroup") == 1


def test_what_cannot_be_deleted_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        def refuse(inotify: int, ways: Sequence[str], *_: object) -> list[int]:
            return [-errno.EACCES] * len(ways)

        with monkeypatch.context() as patched:
            patched.setattr(watches, "delete_cgroups", refuse)
            own.make("one")
            own.pass_through("one")
            await until(lambda: reaper.releases.counters.failed >= 2)
        assert not script.told
        await until(lambda: script.told)

    monkeypatch.setattr(release, "FAILED_PAUSE", 0.05)
    play(scenario, Ground.make)


def test_those_that_wait_for_descriptors_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there may be, for as long as a script's database is away."""
    looks: list[str] = []

    def counted(ways: Sequence[str], *arguments: Any) -> Iterable[tuple[int, ...]]:
        looks.extend(ways)
        return look(ways, *arguments)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        script.ends_at_once = False
        reaper._limit = 2
        for number in range(20):
            own.make(f"{number}")
            own.pass_through(f"{number}")
        await until(lambda: len(script.told) == 2 and len(reaper.releases.queue) == 18)
        looks.clear()
        await asyncio.sleep(QUIET)
        assert len(looks) <= 36, "of late events, not twenty a second for each"
        own.folder(next(iter(reaper.releases.queue)).name).rmdir()
        await until(lambda: len(reaper.releases.queue) == 17)
        script.ends_at_once = True
        for ended in script.running:
            ended.set_result(True)
        await until(lambda: len(script.told) == 19)
        assert not reaper.releases.queue

    monkeypatch.setattr(release, "look", counted)
    play(scenario, Ground.make)


def test_many_events_of_a_cgroup_are_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def counted(ways: Sequence[str], *arguments: Any) -> Iterable[tuple[int, ...]]:
        looks.extend(ways)
        return look(ways, *arguments)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("a")
        own.make("b")
        await until(lambda: len(reaper.tree.members()) == 2)
        await asyncio.sleep(0.1)
        looks.clear()
        for _ in range(20):  # the loop has no turn meanwhile; the kernel makes one of those that are alike and in a row
            own.pass_through("a")
            own.pass_through("b")
        await until(lambda: len(script.told) == 2)
        assert len(looks) <= 12, "one for each tick in which there were some, not 40"

    monkeypatch.setattr(release, "look", counted)
    play(scenario, Ground.make)


def test_hundreds_that_were_made_anew_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them is found out when it is looked at, which asks for another look."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for number in range(400):
            own.make(f"{number}")
        await until(lambda: len(reaper.tree.members()) == 400)
        process = own.enter("0")
        for number in range(1, 400):  # the loop has no turn meanwhile
            for _ in range(2):
                own.folder(f"{number}").joinpath("cgroup.procs").write_text(str(process.pid))
                own.folder("0").joinpath("cgroup.procs").write_text(str(process.pid))
                own.folder(f"{number}").rmdir()
                own.make(f"{number}")
            own.folder(f"{number}").joinpath("cgroup.procs").write_text(str(process.pid))
        process.end()
        await until(lambda: reaper.releases.counters.unseen >= 399)
        await asyncio.sleep(QUIET)

    play(scenario, Ground.make)
    assert "unexpected" not in caplog.text


def test_with_few_descriptors_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for number in range(3):
            own.make(f"{number}")
            own.pass_through(f"{number}")
        await until(lambda: len(script.told) == 3)

    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (64, 64))
    play(scenario, Ground.make)
