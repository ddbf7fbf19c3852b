"""Ending what services left behind, in a process that is a subreaper and owns all that it may kill."""

from __future__ import annotations

import os
import signal

import prctl

from supervisor.process import leftovers
from supervisor.process.leftovers import Process, kill_descendants, kill_sessions, read_process
from tests.unit.process.family import Family, family, wait_gone
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import child_process, wait_exit, wait_readable, wait_until


def test_those_of_a_session_die_and_no_others() -> None:
    def check(family: Family) -> list[bool]:
        members = family.start(session=True, below=2)
        others = [*family.start(), *family.start(session=True, below=1)]
        kill_sessions({members[0]}, spare=())
        wait_gone(family, *members)
        return family.alive(*others)

    assert family(check) == [True, True, True]


def test_those_whose_leader_is_long_gone_die_too() -> None:
    """A daemon that forked twice in the session of a service that crashed."""

    def check(family: Family) -> bool:
        read_end, write_end = os.pipe()
        leader = os.fork()
        if leader == 0:
            os.setsid()
            if os.fork() == 0:
                if os.fork() == 0:
                    os.write(write_end, b"%16d" % os.getpid())
                    signal.pause()
                os._exit(0)
            os.wait()
            os._exit(0)
        orphan = int(os.read(read_end, 16))
        os.waitpid(leader, 0)
        wait_until(lambda: (process := read_process(orphan)) is not None and process.parent == os.getpid())
        assert os.getsid(orphan) == leader
        kill_sessions({leader}, spare=())
        wait_gone(family, orphan)
        return True

    assert family(check)


def test_spared_sessions_live_on() -> None:
    def check(family: Family) -> list[bool]:
        (doomed,), (spared,) = family.start(session=True), family.start(session=True)
        kill_sessions({doomed, spared}, spare={spared})
        wait_gone(family, doomed)
        return family.alive(spared)

    assert family(check) == [True]


def test_nobody_but_descendants_is_hit() -> None:
    """A brother in the same session lives on."""

    def check(family: Family) -> tuple[int, list[bool]]:
        os.setsid()
        (brother,) = family.start()

        def hunt() -> None:
            prey = os.fork()
            if prey == 0:
                signal.pause()
            kill_sessions({os.getsid(0)}, spare=())
            assert wait_exit(prey) == -signal.SIGKILL

        with child_process(hunt) as hunter:
            status = wait_exit(hunter)
        return status, family.alive(brother)

    assert family(check) == (0, [True])


def test_all_descendants_of_any_session_die() -> None:
    def check(family: Family) -> bool:
        pids = [*family.start(), *family.start(session=True, below=3), *family.start(below=1)]
        kill_descendants()
        wait_gone(family, *pids)
        return True

    assert family(check)


def test_zombies_are_not_hunted_for_ever() -> None:
    def check(family: Family) -> bool:
        zombie = os.fork()
        if zombie == 0:
            os._exit(0)
        os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
        scans = 0
        descendants = leftovers._descendants

        def counted() -> list[Process]:
            nonlocal scans
            scans += 1
            return descendants()

        leftovers._descendants = counted
        kill_descendants()
        return scans == 1

    assert family(check)


def test_a_pid_that_was_used_again_is_not_hit() -> None:
    def wait() -> None:
        signal.signal(signal.SIGUSR1, lambda _signum, _frame: os._exit(7))
        os.write(write_end, b"!")
        while True:
            signal.pause()

    read_end, write_end = os.pipe()
    try:
        with child_process(wait) as pid:
            wait_readable(read_end)
            process = read_process(pid)
            assert process is not None
            leftovers._kill(process._replace(started=process.started - 1))
            # a KILL would come before it
            os.kill(pid, signal.SIGUSR1)
            assert wait_exit(pid) == 7
            leftovers._kill(process)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_one_that_is_still_itself_is_hit() -> None:
    with child_process(signal.pause) as pid:
        process = read_process(pid)
        assert process is not None
        leftovers._kill(process)
        assert wait_exit(pid) == -signal.SIGKILL


@needs_root
def test_what_may_not_be_killed_is_no_error() -> None:
    """A spawnd that is not root, and a set-uid program that is."""

    def check(family: Family) -> list[bool]:
        (pid,) = family.start()
        os.setresuid(65534, 65534, 0)
        try:
            kill_descendants()
        finally:
            os.setresuid(0, 0, 0)
        return family.alive(pid)

    assert family(check) == [True]


def test_what_the_kernel_says_of_a_process() -> None:
    process = read_process(os.getpid())
    assert process is not None
    assert (process.pid, process.parent, process.session) == (os.getpid(), os.getppid(), os.getsid(0))
    assert process.state == "R"
    assert 0 < process.started


def test_a_name_can_hold_anything() -> None:
    def check(_family: Family) -> bool:
        prctl.set_name(") Z 1 1 1\n(")
        process = read_process(os.getpid())
        assert process is not None
        return (process.state, process.parent) == ("R", os.getppid())

    assert family(check)


def test_where_there_is_no_process_there_is_nothing_to_say() -> None:
    assert read_process(2**22 + 1) is None
