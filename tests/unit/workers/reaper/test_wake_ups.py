"""How often the reaper wakes up, and for what."""

from __future__ import annotations

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper import schedule, watches
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
