"""Which processes are known to be a service's own, as those end that proved it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import cast

from supervisor.manager.kin import Kin
from supervisor.manager.unit import Unit
from supervisor.process.children import Children
from supervisor.process.marks import Marked
from supervisor.process.pids import start_time
from supervisor.process.run import Run
from tests.unit.process.family import Family, family
from tests.unit.waiting import wait_until


@dataclass
class Known:
    """The part of a unit that `Kin` uses."""

    leftover_pids: dict[int, int] = field(default_factory=dict)
    run: Run | None = None
    cgroup: None = None
    mark: str = "own"
    first_started: int = 1


class World:
    def __init__(self) -> None:
        self.unit = Known()
        self.other = Known()
        self.touched: list[object] = []
        self.children = Children(lambda pid, exit: None)
        units = [cast(Unit, self.unit), cast(Unit, self.other)]
        self.kin = Kin(self.children, lambda: units, self.touched.append)

    def end(self, pid: int) -> None:
        """Until it is reaped."""
        started = start_time(pid)
        os.kill(pid, signal.SIGKILL)

        def is_gone() -> bool:
            self.children.reap()
            return start_time(pid) != started

        wait_until(is_gone)


def test_the_last_known_one_of_a_session_hands_on_to_the_others() -> None:
    """Its later children are in its session, whose number is not used again until it is reaped."""

    def check(family: Family) -> bool:
        world = World()
        known, below = family.start(session=True, below=1)
        stranger = family.start(session=True)[0]
        world.unit.leftover_pids = {known: start_time(known)}
        world.end(stranger)
        assert not world.touched
        world.end(known)
        assert world.unit.leftover_pids == {below: start_time(below)}
        assert world.touched == [world.unit]
        return world.kin.living(cast(Unit, world.unit)) == {below: start_time(below)}

    assert family(check)


def test_nobody_is_looked_for_where_another_of_the_session_is_known() -> None:
    def check(family: Family) -> bool:
        world = World()
        known, other, unknown = family.start(session=True, below=2)
        world.unit.leftover_pids = {known: start_time(known), other: start_time(other)}
        world.end(known)
        return not world.touched and unknown in world.kin.living(cast(Unit, world.unit))

    assert family(check)


def test_the_main_process_is_none_of_the_others() -> None:
    """It may be in the session of others, where it is a daemon in the background."""

    def check(family: Family) -> bool:
        world = World()
        known, main = family.start(session=True, below=1)
        world.unit.leftover_pids = {known: start_time(known)}
        world.unit.run = Run(main, started=start_time(main))
        return world.kin.living(cast(Unit, world.unit)) == {known: start_time(known)}

    assert family(check)


def test_orphans_without_a_mark_that_no_other_service_has() -> None:
    def check(family: Family) -> bool:
        world = World()
        pid, below = family.start(session=True, below=1)
        started = start_time(pid)

        def found(marked: Marked, of: int = pid) -> bool:
            return of in world.kin.without_proof(cast(Unit, world.unit), {of: marked})

        assert found(Marked(started))
        assert found(Marked(started, "own"))
        assert not found(Marked(started, "other"))
        assert not found(Marked(started - 1))
        assert not found(Marked(start_time(below)), below)
        world.unit.first_started = started + 1
        assert not found(Marked(started))
        world.unit.first_started = 0
        assert not found(Marked(started))
        world.unit.first_started = started
        assert found(Marked(started))
        for known in (pid, below):  # itself, and one in its session
            world.other.leftover_pids = {known: start_time(known)}
            assert not found(Marked(started))
        world.other.leftover_pids = {below: start_time(below) - 1}
        assert found(Marked(started))
        world.other.run = Run(pid, started=started)
        assert not found(Marked(started))
        world.other.run = None
        world.children.when_reaped(pid, lambda: None)
        return not found(Marked(started))

    assert family(check)
