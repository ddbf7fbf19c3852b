"""Looking at what services left behind, in a process that is a subreaper."""

from __future__ import annotations

import os
import signal

import pytest

from supervisor.process import orphans
from supervisor.process.leftovers import Process, read_process
from supervisor.process.orphans import Orphans
from tests.unit.process.family import Family, family, wait_gone
from tests.unit.waiting import child_process, wait_exit


def pids(found: list[Process]) -> set[int]:
    return {process.pid for process in found}


def test_who_is_left_in_a_session_is_told_and_no_zombie() -> None:
    def check(family: Family) -> bool:
        (one,), others = family.start(session=True), family.start(session=True, below=1)
        gone = os.fork()
        if gone == 0:
            os._exit(0)
        os.waitpid(gone, 0)
        looking = Orphans()
        for _ in range(2):
            assert {process.session for process in looking.living_in({one, others[0], gone})} == {one, others[0]}
        os.kill(others[0], signal.SIGKILL)
        assert os.waitid(os.P_PID, others[0], os.WEXITED | os.WNOWAIT)
        return pids(looking.living_in({others[0], gone})) == {others[1]}

    assert family(check)


def test_a_child_is_read_once_until_it_is_reaped() -> None:
    def check(family: Family) -> tuple[list[int], list[int], bool]:
        (child,) = family.start(session=True)
        read: list[int] = []

        def reading(pid: int) -> Process | None:
            read.append(pid)
            return read_process(pid)

        orphans.read_process = reading  # type: ignore[attr-defined]  # in a process of its own
        looking = Orphans()
        first, second = looking.living_in({child}), looking.living_in({child})
        once = list(read)
        os.kill(child, signal.SIGKILL)
        wait_gone(family, child)
        looking.reaped(child)
        return once, read[1:], first == second and not looking.living_in({child})

    once, later, same = family(check)
    assert len(once) == 1
    assert not later, "what is gone has no session"
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
        os.waitpid(leader, 0)
        looking = Orphans()
        before = pids(looking.living_in({leader})) == {orphan}
        os.write(go_write, b"x")
        os.read(told_read, 4)
        after = looking.living_in({leader}) == [] and pids(looking.living_in({orphan})) == {orphan}
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)
        return before, after

    assert family(check) == (True, True)


def test_nobody_but_descendants_is_told_of() -> None:
    """A brother is in the same session: its number may be anybody's by now."""

    def check(family: Family) -> int:
        os.setsid()
        family.start()

        def look() -> None:
            child = os.fork()
            if child == 0:
                signal.pause()
            try:
                assert pids(Orphans().living_in({os.getsid(0)})) == {child}
            finally:
                os.kill(child, signal.SIGKILL)
                wait_exit(child)

        with child_process(look) as looker:
            return wait_exit(looker)

    assert family(check) == 0


def test_one_whose_parent_ends_meanwhile_is_ours_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getpid()
    answers = {4: None, 5: Process(5, "S", me, 5, 5, 1)}
    monkeypatch.setattr(orphans, "read_process", answers.get)
    known = {me: True, 0: False}
    assert orphans._is_ours(Process(5, "S", 4, 5, 5, 1), known)
    assert known[5]


def test_one_whose_parent_is_hidden_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = Process(5, "S", 4, 5, 5, 1)
    monkeypatch.setattr(orphans, "read_process", {5: hidden}.get)
    assert not orphans._is_ours(hidden, {os.getpid(): True, 0: False})
