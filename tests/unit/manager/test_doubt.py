"""A process of an earlier spawnd that does not show whether it is still the same."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from supervisor.process.run import Run
from supervisor.process.survivor import Doubt, has_ended
from tests.unit.waiting import child_process, wait_until

if TYPE_CHECKING:
    from supervisor.loop.loop import Loop


def doubts(loop: Loop, run: Run) -> list[str]:
    """Return the verdict of one look at the process."""
    said: list[str] = []
    Doubt(loop, run, lambda: said.append("another"))._look()
    return said


def test_another_process_is_told(loop: Loop) -> None:
    with child_process(signal.pause) as pid:
        run = Run(pid, started=1, pidfd=os.pidfd_open(pid), in_doubt=True)
        assert doubts(loop, run) == ["another"]
        run.close()


def test_of_one_that_has_ended_nothing_is_said_twice(loop: Loop) -> None:
    """Its end is told by its pidfd, and its last words may be heard over some turns."""
    with child_process(lambda: os._exit(0)) as pid:
        run = Run(pid, started=1, pidfd=os.pidfd_open(pid), in_doubt=True)
        wait_until(lambda: has_ended(run.pidfd))
        assert not doubts(loop, run)
        run.close()
