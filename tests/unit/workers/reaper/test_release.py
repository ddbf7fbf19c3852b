"""The time of releases, with real processes in real cgroups."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.lua.released import Released
from workers.reaper import release, tree, watches
from workers.reaper.cgroup_calls import look
from workers.reaper.node import NOT_WATCHED, WatchedCgroup
from workers.reaper.reaper import Reaper

pytestmark = needs_root


def watches_of(fd: int) -> int:
    """How many the kernel has: a watch that is not ended keeps the inode of a cgroup that is gone."""
    return Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd")


QUIET = 0.3  # seconds: longer than anything that is pending may take


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
