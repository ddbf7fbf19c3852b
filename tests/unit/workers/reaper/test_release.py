"""The time of releases, with real processes in real cgroups."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import QUIET, Script, play, until
from workers.reaper.reaper import Reaper

pytestmark = needs_root


def test_one_that_runs_empty_is_deleted_and_told_of_once() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("one")
        process = own.enter("one")
        await asyncio.sleep(0.1)
        assert own.folder("one").exists()
        process.end()
        emptied = time.monotonic()
        await until(lambda: script.told)
        assert time.monotonic() - emptied >= 0.049
        assert not own.folder("one").exists(), "it is told of when it is gone"
        await asyncio.sleep(QUIET)
        (told,) = script.told
        assert told.path == f"{own.scope}/one"
        assert told.counted["cpu_total"]
        assert reaper.releases.counters.released == 1

    play(scenario, Ground.make)


def test_made_filled_and_emptied_before_anybody_looks() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for number in range(20):
            own.make(f"{number}")
            own.pass_through(f"{number}")
        await until(lambda: len(script.told) == 20)
        assert not list(own.folder().glob("[0-9]*"))

    play(scenario, Ground.make)


def test_one_that_never_had_a_process_is_left_alone() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("fresh")
        await asyncio.sleep(QUIET)
        assert own.folder("fresh").exists()
        for frozen in "10":  # which changes cgroup.events
            own.folder("fresh").joinpath("cgroup.freeze").write_text(frozen)
            await asyncio.sleep(QUIET)
        assert own.folder("fresh").exists()
        own.pass_through("fresh")
        await until(lambda: script.told)

    play(scenario, Ground.make)


def test_a_process_that_only_passes_through() -> None:
    """It is moved in and out, and the kernel counts no time for that."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for number in range(30):
            own.make(f"{number}")
        await until(lambda: len(reaper.tree.members()) == 30)
        process = own.enter("0")
        for number in range(1, 30):
            own.folder(f"{number}").joinpath("cgroup.procs").write_text(str(process.pid))
        await until(lambda: len(script.told) == 29)
        process.end()
        await until(lambda: len(script.told) == 30)

    play(scenario, Ground.make)


def test_populated_again_within_the_delay_is_told_of_once_and_later() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("back")
        own.pass_through("back")
        await until(lambda: reaper.releases.waiting)
        process = own.enter("back")
        await asyncio.sleep(0.8)
        assert not script.told
        assert own.folder("back").exists()
        process.end()
        await until(lambda: script.told)
        await asyncio.sleep(QUIET)
        assert script.paths() == [f"{own.scope}/back"]
        assert reaper.releases.counters.repopulated == 1

    play(scenario, Ground.make, delete_delay=0.5)


def test_the_kernel_has_the_last_word_on_who_moved_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """EBUSY: nothing is told, and it is deleted when it is empty again."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("busy")
        own.pass_through("busy")
        await until(lambda: reaper.releases.waiting)
        with monkeypatch.context() as patched:  # no event tells of it
            patched.setattr(reaper.tree.watches, "read", lambda: ([], False))
            process = own.enter("busy")
            await until(lambda: reaper.releases.counters.repopulated)
        assert not script.told
        process.end()
        await until(lambda: script.told)
        assert script.paths() == [f"{own.scope}/busy"]

    play(scenario, Ground.make, delete_delay=0.3)


def test_deleted_by_somebody_else_within_the_delay() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("theirs")
        os.setxattr(own.folder("theirs"), "user.account", b"somebody")
        own.pass_through("theirs")
        await until(lambda: reaper.releases.waiting)
        own.folder("theirs").rmdir()
        await until(lambda: script.told)
        (told,) = script.told
        assert told.counted["cpu_total"], "the first reading"
        assert reaper.releases.counters.deleted_by_others == 1

    play(scenario, Ground.make, delete_delay=5.0)


def test_deleted_by_somebody_else_and_made_anew_at_once() -> None:
    """The new one is another cgroup, whatever its name."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        for _ in range(5):
            own.make("name")
            own.pass_through("name")
            await until(lambda: reaper.releases.waiting)
            own.folder("name").rmdir()
            own.make("name")
            await until(lambda: script.told)
            await asyncio.sleep(0.5)
            assert own.folder("name").exists(), "it never had a process"
            own.pass_through("name")
            await until(lambda: len(script.told) == 2)
            assert not own.folder("name").exists()
            script.told.clear()

    play(scenario, Ground.make, delete_delay=0.3)


def meanwhile(monkeypatch: pytest.MonkeyPatch, reaper: Reaper, do: Callable[[], object]) -> None:
    """Have this done once, between the last reading and the deletion."""
    delete = reaper.tree.watches.delete

    def interrupted(*arguments: Any) -> Sequence[int]:
        monkeypatch.setattr(reaper.tree.watches, "delete", delete)
        do()
        return delete(*arguments)

    monkeypatch.setattr(reaper.tree.watches, "delete", interrupted)


def test_deleted_and_made_anew_right_before_our_deletion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The new one stays, and the old one is told of once; those that are deleted with it are as well."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        def make_anew() -> None:
            own.folder("name").rmdir()
            own.make("name")
            made.append(own.folder("name").stat().st_ino)

        made: list[int] = []
        for name in ("name", "other"):
            own.make(name)
            own.pass_through(name)
        await until(lambda: reaper.releases.waiting == 2)
        meanwhile(monkeypatch, reaper, make_anew)
        await until(lambda: len(script.told) == 2)
        await asyncio.sleep(QUIET)
        assert [own.folder("name").stat().st_ino] == made
        assert not own.folder("other").exists()
        assert sorted(script.paths()) == [f"{own.scope}/name", f"{own.scope}/other"]
        assert reaper.releases.counters.deleted_by_others == 1
        own.pass_through("name")
        await until(lambda: len(script.told) == 3)
        assert reaper.accounting is not None
        assert reaper.accounting.spool.rows == 3

    play(scenario, Ground.make, delete_delay=0.3, database=f"sqlite:{tmp_path}/a.db", spool=f"{tmp_path}/spool")


def test_a_process_that_comes_and_goes_right_before_our_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU time that it used is counted."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        used: list[int] = []

        def pass_through() -> None:
            own.pass_through("name")
            text = own.folder("name").joinpath("cpu.stat").read_text()
            used.append(int(text.split()[1]))

        own.make("name")
        own.pass_through("name")
        await until(lambda: reaper.releases.waiting)
        meanwhile(monkeypatch, reaper, pass_through)
        await until(lambda: script.told)
        assert [round(told.counted["cpu_total"] * 1e6) for told in script.told] == used  # type: ignore[operator]
        assert not own.folder("name").exists()

    play(scenario, Ground.make)


def test_one_that_is_deleted_before_it_is_read_is_not_told_of() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("short")
        own.folder("short").rmdir()
        own.make("long")
        await until(lambda: len(reaper.tree.members()) == 1)
        own.folder("long").rmdir()
        await until(lambda: not reaper.tree.members())
        assert not script.told

    play(scenario, Ground.make)


def test_parents_follow_their_last_child() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("a/b/c")
        own.make("a/b/d")
        first, second = own.enter("a/b/c"), own.enter("a/b/d")
        first.end()
        await until(lambda: script.told)
        await asyncio.sleep(QUIET)
        assert script.paths() == [f"{own.scope}/a/b/c"]
        second.end()
        await until(lambda: len(script.told) == 4)
        assert script.paths()[1:] == [f"{own.scope}/{path}" for path in ("a/b/d", "a/b", "a")]
        assert own.folder().exists(), "the scope itself is never deleted"
        assert reaper.releases.counters.repopulated == 0, "nobody was found busy on the way"

    play(scenario, Ground.make)


def test_a_parent_waits_for_a_child_that_somebody_is_about_to_fill() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("parent/old")
        own.make("parent/new")
        own.pass_through("parent/old")
        await until(lambda: script.told)
        await asyncio.sleep(QUIET)
        assert own.folder("parent/new").exists()
        own.pass_through("parent/new")
        await until(lambda: len(script.told) == 3)
        assert script.paths()[1:] == [f"{own.scope}/parent/new", f"{own.scope}/parent"]

    play(scenario, Ground.make)


def test_parents_whose_children_stay_leave_the_descriptors_to_others() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        reaper._limit = 2
        parents = ["a", "a/b", "c", "d"]
        for path in parents:
            own.make(f"{path}/unused")
        for path in parents:
            own.pass_through(path)
        await until(lambda: all(node.used for node in reaper.tree.members() if node.name != "unused"))
        own.make("other")
        own.pass_through("other")
        await until(lambda: script.told)
        assert script.paths() == [f"{own.scope}/other"]
        await until(lambda: not reaper.releases.waiting)
        for path in reversed(parents):
            own.folder(f"{path}/unused").rmdir()
        await until(lambda: len(script.told) == 1 + len(parents))
        assert set(script.paths()[1:]) == {f"{own.scope}/{path}" for path in parents}
        assert script.paths().index(f"{own.scope}/a/b") < script.paths().index(f"{own.scope}/a")

    play(scenario, Ground.make)


def test_a_parent_whose_last_child_somebody_else_deletes() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("parent/child")
        own.pass_through("parent")
        await asyncio.sleep(QUIET)
        assert not script.told
        own.folder("parent/child").rmdir()
        await until(lambda: script.told)
        assert script.paths() == [f"{own.scope}/parent"]

    play(scenario, Ground.make)
