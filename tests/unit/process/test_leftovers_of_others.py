"""Ending what an earlier spawnd's services left behind, which is below nobody here, and never anybody else's."""

from __future__ import annotations

import os
import signal
import time

import pytest

from supervisor.process import leftovers
from supervisor.process.leftovers import Orphans, kill_processes, left_by, relatives
from supervisor.process.pids import group_lives, kill_group, look_at_all, read_process, start_time, still_living
from tests.unit.process.family import Family, family, family_with_chosen_pids, next_pid, wait_gone
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_until

TICKS = os.sysconf("SC_CLK_TCK")


def now() -> int:
    """In clock ticks since boot, as start times are."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


def wait_tick() -> None:
    """Until what is started from here on has a later start time than all before."""
    begun = now()
    wait_until(lambda: now() > begun + 1)


def nobody(_pid: int) -> bool:
    return False


def reap(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# a group


def test_a_group_dies_with_its_leader_and_no_others() -> None:
    def check(family: Family) -> list[bool]:
        members, others = family.start(session=True, below=2), family.start(session=True, below=1)
        assert group_lives(members[0], start_time(members[0]))
        kill_group(members[0], start_time(members[0]))
        wait_gone(family, *members)
        return family.alive(*others)

    assert family(check) == [True, True]


def test_a_group_whose_leader_is_gone_dies() -> None:
    def check(family: Family) -> bool:
        leader, *members = family.start(session=True, below=2)
        started = start_time(leader)
        reap(leader)
        assert group_lives(leader, started)
        kill_group(leader, started)
        wait_gone(family, *members)
        return group_lives(leader, started)

    assert family(check) is False


def test_zombies_are_nothing_that_is_left() -> None:
    def check(family: Family) -> bool:
        (leader,) = family.start(session=True)
        started = start_time(leader)
        os.kill(leader, signal.SIGKILL)
        assert os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
        return group_lives(leader, started)

    assert family(check) is False


@needs_root
def test_a_group_of_a_stranger_with_the_leader_s_number_lives_on() -> None:
    def check(family: Family) -> list[bool]:
        (leader,) = family.start(session=True)
        started = start_time(leader)
        reap(leader)
        wait_tick()
        next_pid(leader)
        strangers = family.start(session=True, below=1)
        assert strangers[0] == leader
        assert not group_lives(leader, started)
        kill_group(leader, started)
        kill_processes({leader: started})
        return family.alive(*strangers)

    assert family_with_chosen_pids(check) == [True, True]


# processes by pid and start time


def test_known_processes_die_with_all_below_them_and_no_others() -> None:
    def check(family: Family) -> list[bool]:
        known, others = family.start(below=2), family.start(session=True, below=1)
        kill_processes({known[0]: start_time(known[0]), others[0]: start_time(others[0]) + 1, 2**22 + 1: 1})
        wait_gone(family, *known)
        return family.alive(*others)

    assert family(check) == [True, True]


def test_who_still_lives() -> None:
    def check(family: Family) -> dict[int, bool]:
        (one,), (ended,), (other,) = family.start(), family.start(), family.start()
        processes = {one: start_time(one), ended: start_time(ended), other: start_time(other) - 1, 2**22 + 1: 1}
        os.kill(ended, signal.SIGKILL)
        assert os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        return {pid == one: started == start_time(one) for pid, started in still_living(processes).items()}

    assert family(check) == {True: True}


# numbers that are used again between two looks


@needs_root
def test_the_session_of_a_stranger_with_a_known_number_lives_on() -> None:
    def check(family: Family) -> list[bool]:
        (leader,) = family.start(session=True)
        known = {leader: start_time(leader)}
        before = look_at_all()
        reap(leader)
        wait_tick()
        next_pid(leader)
        strangers = family.start(session=True, below=2)
        assert strangers[0] == leader
        # one that was read before, the others after
        mixed = [process for process in before if process.pid == leader] + look_at_all()
        found = leftovers.family(known, mixed) | relatives(known, mixed) | Orphans().living_with(known)
        assert not found.keys() & set(strangers[1:])
        reap(leader)
        assert leftovers.family(known, [*before, *look_at_all()]).keys() <= {leader}
        assert Orphans().living_with(known) == {}
        kill_processes(known)
        return family.alive(*strangers[1:])

    assert family_with_chosen_pids(check) == [True, True]


@needs_root
def test_a_child_of_a_stranger_whose_number_a_descendant_got_lives_on() -> None:
    """A child is read while its parent is a stranger, which ends, and a process of the service gets its number."""

    def check(family: Family) -> bool:
        mother, child = family.start(below=1)
        before = [process for process in look_at_all() if process.pid == child]
        read_end, write_end = os.pipe()
        top = os.fork()
        if top == 0:
            os.read(read_end, 1)
            os.fork()
            signal.pause()
        reap(mother)
        next_pid(mother)
        os.write(write_end, b"!")
        wait_until(lambda: os.path.exists(f"/proc/{mother}"))  # a look has a child, which would get the number
        mixed = before + [process for process in look_at_all() if process.pid != child]
        return leftovers.family({top: start_time(top)}, mixed).keys() == {top, mother}

    assert family_with_chosen_pids(check)


def is_taken_over(family: Family, pid: int) -> bool:
    """Have a stranger get a number, which is free a moment after its process has gone."""
    next_pid(pid)
    return family.start(session=True, below=1)[0] == pid


@needs_root
def test_a_stranger_that_gets_the_number_of_a_child_that_was_listed_is_none() -> None:
    def check(family: Family) -> bool:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the parent reaps the child
        top, child = family.start(below=1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        children_of = leftovers._children_of

        def then_another(pid: int, most: int) -> tuple[list[int], int]:
            listed = children_of(pid, most)
            if pid == top:
                os.kill(child, signal.SIGKILL)
                wait_until(lambda: is_taken_over(family, child))
            return listed

        leftovers._children_of = then_another  # in a process of its own
        return leftovers.descendants_of(top, start_time(top)) == {}

    assert family_with_chosen_pids(check)


def test_the_look_below_a_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are there, and though new ones come all the time."""
    monkeypatch.setattr(leftovers, "MOST_LOOKS", 4)

    def check(family: Family) -> int:
        top = family.start(below=9)[0]
        return len(leftovers.descendants_of(top, start_time(top)))

    assert family(check) == 2


# sessions


def test_relatives_are_those_in_the_session_of_one_that_lives() -> None:
    def check(family: Family) -> bool:
        leader, *members = family.start(session=True, below=2)
        others = family.start(session=True, below=1)
        started = start_time(leader)
        reap(leader)
        assert relatives({leader: started}, look_at_all()) == {}, "nobody that is known lives"
        known = {leader: started, members[0]: start_time(members[0]), others[0]: start_time(others[0]) + 1}
        assert relatives({}, look_at_all()) == {}
        return relatives(known, look_at_all()) == {pid: start_time(pid) for pid in members}

    assert family(check)


def test_what_a_leader_left_when_nobody_looked() -> None:
    """A process that was in the session while its leader lived proves that later ones belong to it, too."""

    def check(family: Family) -> bool:
        leader, *members = family.start(session=True, below=2)
        started = start_time(leader)
        assert left_by(leader, started, started, look_at_all(), nobody) == {}, "nobody shows it"
        wait_tick()
        before = now()
        reap(leader)
        expected = {pid: start_time(pid) for pid in members}
        assert left_by(leader, started, before, look_at_all(), nobody) == expected
        for pid in members:
            reap_orphan(pid)
        return left_by(leader, started, before, look_at_all(), nobody) == {}

    assert family(check)


def test_what_a_leader_left_that_nobody_saw_begin() -> None:
    """A process with a mark of the leader proves it as well."""

    def check(family: Family) -> bool:
        leader, *members = family.start(session=True, below=2)
        started = start_time(leader)
        reap(leader)
        expected = {pid: start_time(pid) for pid in members}
        return left_by(leader, started, started, look_at_all(), lambda pid: pid == members[1]) == expected

    assert family(check)


def reap_orphan(pid: int) -> None:
    """As the subreaper that it came to."""
    wait_until(lambda: (process := read_process(pid)) is not None and process.parent == os.getpid())
    reap(pid)


@needs_root
def test_what_a_stranger_with_the_leader_s_number_left_is_not_taken_for_it() -> None:
    def check(family: Family) -> tuple[object, object]:
        (leader,) = family.start(session=True)
        started = start_time(leader)
        wait_tick()
        before = now()
        reap(leader)
        wait_tick()
        next_pid(leader)
        strangers = family.start(session=True, below=1)
        assert strangers[0] == leader
        while_there = left_by(leader, started, before, look_at_all(), nobody)
        reap(strangers[0])
        assert os.getsid(strangers[1]) == leader
        return while_there, left_by(leader, started, before, look_at_all(), nobody)

    assert family_with_chosen_pids(check) == ({}, {})
