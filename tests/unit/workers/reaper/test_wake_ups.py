"""How often the reaper wakes up, and for what."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper import release, schedule, watches
from workers.reaper.accounting import writer
from workers.reaper.options import DELETE_DELAY
from workers.reaper.reaper import Reaper


@needs_root
def test_events_are_seen_to_when_there_is_a_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a time of their own then."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("one")
        own.make("two")
        await until(lambda: len(reaper.tree.members()) == 2 and reaper.tree._reader._next is None)
        monkeypatch.setattr(watches, "PAUSE", 3600.0)
        own.pass_through("one")
        await until(lambda: reaper.releases.waiting)
        own.pass_through("two")
        await until(lambda: len(script.told) == 2)

    play(scenario, Ground.make)


def test_a_deletion_comes_before_the_next_look_for_events() -> None:
    """Else the wake-up for that look would be for nothing."""
    assert watches.PAUSE > DELETE_DELAY + schedule.GATHER


def test_rows_go_to_the_database_before_the_spool_is_brought_to_the_disk() -> None:
    """Else each row would be synced twice."""
    assert writer.SYNC_PAUSE > writer.BATCH_PAUSE


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the first words of the lines of the log, one list for each write."""
    writes: list[list[str]] = []

    def write(lines: Sequence[str]) -> None:
        writes.append([line.partition(":")[0] for line in lines])

    monkeypatch.setattr(release, "info_lines", write)
    return writes


async def one_after_the_other(own: Ground, reaper: Reaper) -> None:
    """Let a cgroup wait for its deletion while the one before it is deleted."""
    own.make("one")
    own.make("two")
    await until(lambda: len(reaper.tree.members()) == 2)
    own.pass_through("one")
    await until(lambda: reaper.releases.waiting)
    own.pass_through("two")
    await until(lambda: reaper.releases.counters.released)


@needs_root
def test_lines_of_the_log_wait_for_the_next_deletion(
    monkeypatch: pytest.MonkeyPatch, written: list[list[str]]
) -> None:
    monkeypatch.setattr(release, "LINES_PAUSE", 3600.0)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        await one_after_the_other(own, reaper)
        await until(lambda: reaper.releases.counters.released == 2)
        assert written == [["one", "two"]]
        own.make("three")
        await until(lambda: reaper.tree.members())
        own.pass_through("three")
        await until(lambda: reaper.releases.counters.released == 3)
        assert written[1:] == [["three"]], "there is nothing to wait for"

    play(scenario, Ground.make, delete_delay=0.3)


@needs_root
def test_lines_that_wait_are_written_at_the_end(monkeypatch: pytest.MonkeyPatch, written: list[list[str]]) -> None:
    monkeypatch.setattr(release, "LINES_PAUSE", 3600.0)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        await one_after_the_other(own, reaper)

    play(scenario, Ground.make, delete_delay=0.3)
    assert written[0][0] == "one"


@needs_root
def test_lines_wait_for_a_limited_time(monkeypatch: pytest.MonkeyPatch, written: list[list[str]]) -> None:
    monkeypatch.setattr(release, "LINES_PAUSE", 0.0)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        await one_after_the_other(own, reaper)
        await until(lambda: written)
        assert written[0][0] == "one"
        assert len(written[0]) == reaper.releases.counters.released

    play(scenario, Ground.make, delete_delay=0.3)
