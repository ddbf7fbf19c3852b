"""Looking at what services left behind, in a process that is a subreaper."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from supervisor.process import leftovers
from supervisor.process.leftovers import Orphans
from supervisor.process.pids import Process, read_processes, start_time
from tests.unit.process.family import Family, family, wait_gone


def started(*pids: int) -> dict[int, int]:
    return {pid: start_time(pid) for pid in pids}


def test_who_is_left_in_a_session_is_told_and_no_zombie() -> None:
    def check(family: Family) -> bool:
        (one,), others = family.start(session=True), family.start(session=True, below=1)
        known = started(one, others[0]) | {2**22 + 1: 1}
        looking = Orphans()
        for _ in range(2):
            assert looking.living_with(known) == started(one, *others)
        assert looking.living_with({one: known[one] + 1}) == {}
        os.kill(others[0], signal.SIGKILL)
        assert os.waitid(os.P_PID, others[0], os.WEXITED | os.WNOWAIT)
        return looking.living_with({others[0]: known[others[0]]}) == started(others[1])

    assert family(check)


def test_a_child_is_read_once_until_it_is_reaped() -> None:
    def check(family: Family) -> tuple[list[int], list[int], bool]:
        (child,) = family.start(session=True)
        read: list[int] = []

        def reading(pids: Iterable[int]) -> list[Process]:
            some = list(pids)
            read.extend(some)
            return read_processes(some)

        leftovers.read_processes = reading  # type: ignore[attr-defined]  # in a process of its own
        looking = Orphans()
        known = started(child)
        first, second = looking.living_with(known), looking.living_with(known)
        once = list(read)
        os.kill(child, signal.SIGKILL)
        wait_gone(family, child)
        looking.reaped(child)
        same = first == second == known and not looking.living_with(known)
        return once, read[1:], same

    once, later, same = family(check)
    assert len(once) == 1
    assert later == once, "its pid may be another's"
    assert same


def test_who_has_left_the_session_is_in_it_no_more() -> None:
    def check(family: Family) -> tuple[bool, bool]:
        told_read, told_write = os.pipe()
        go_read, go_write = os.pipe()
        leader = os.fork()
        if leader == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(told_write, b"%16d" % os.getpid())
                os.read(go_read, 1)
                os.setsid()
                os.write(told_write, b"gone")
                signal.pause()
            os._exit(0)
        orphan = int(os.read(told_read, 16))
        os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
        known = started(leader)
        looking = Orphans()
        before = looking.living_with(known) == started(orphan)
        looking.reaped(leader)
        os.waitpid(leader, 0)
        os.write(go_write, b"x")
        os.read(told_read, 4)
        after = looking.living_with(known) == {} and looking.living_with(started(orphan)) == started(orphan)
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)
        return before, after

    assert family(check) == (True, True)


