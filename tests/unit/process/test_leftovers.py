"""Ending what services left behind, in a process that is a subreaper and owns all that it may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import prctl

from supervisor.process import leftovers, pids
from supervisor.process.leftovers import descendants_of, kill_descendants, kill_processes
from supervisor.process.pids import Process, read_process, start_time
from tests.unit.process.family import Family, family, wait_gone
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import child_process, wait_exit, wait_readable, wait_until


def test_those_of_a_session_die_and_no_others() -> None:
    """Also those whose parent has ended: they are below nobody that is known."""

    def check(family: Family) -> list[bool]:
        members = family.start(session=True, below=3)
        others = [*family.start(), *family.start(session=True, below=1)]
        os.kill(members[1], signal.SIGKILL)
        wait_until(lambda: (process := read_process(members[2])) is not None and process.parent == os.getpid())
        kill_processes({members[0]: start_time(members[0])})
        wait_gone(family, *members)
        return family.alive(*others)

    assert family(check) == [True, True, True]


def test_those_whose_leader_is_dead_die_until_it_is_reaped() -> None:
    def check(family: Family) -> list[bool]:
        leader, member = family.start(session=True, below=1)
        started = start_time(leader)
        os.kill(leader, signal.SIGKILL)
        os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
        kill_processes({leader: started + 1})
        before = family_alive(member)
        kill_processes({leader: started})
        wait_gone(family, member)
        return [before, family_alive(member)]

    assert family(check) == [True, False]


def family_alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.state not in "ZX"


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
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.write(write_end, b"!")
        signal.sigwait({signal.SIGUSR1})
        os._exit(7)

    read_end, write_end = os.pipe()
    try:
        with child_process(wait) as pid:
            wait_readable(read_end)
            process = read_process(pid)
            assert process is not None
            pids.signal_processes({pid: process.started - 1}, signal.SIGKILL)
            # a KILL would come before it
            os.kill(pid, signal.SIGUSR1)
            assert wait_exit(pid) == 7
            pids.signal_processes({pid: process.started}, signal.SIGKILL)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_one_that_is_still_itself_is_hit() -> None:
    with child_process(signal.pause) as pid:
        process = read_process(pid)
        assert process is not None
        pids.signal_processes({pid: process.started}, signal.SIGKILL)
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
    assert process.state in "RS"  # it waits for the child that looks
    assert 0 < process.started


def test_a_name_can_hold_anything() -> None:
    def check(_family: Family) -> bool:
        prctl.set_name(") Z 1 1 1\n(")
        process = read_process(os.getpid())
        assert process is not None
        return process.state in "RS" and process.parent == os.getppid()

    assert family(check)


def test_where_there_is_no_process_there_is_nothing_to_say() -> None:
    assert read_process(2**22 + 1) is None


def test_a_family_is_the_session_of_the_leader_and_all_below_it() -> None:
    def check(family: Family) -> bool:
        members = family.start(session=True, below=2)
        others = [*family.start(), *family.start(session=True)]
        leader = read_process(members[0])
        assert leader is not None
        found = leftovers.family({leader.pid: leader.started}, pids.look_at_all())
        assert not found.keys() & {*others, os.getpid()}
        return set(found) == set(members)

    assert family(check)


def test_a_leader_that_has_no_session_of_its_own_yet_has_no_family_but_those_below_it() -> None:
    """Everybody in our session would be told to end otherwise, we among them."""

    def check(family: Family) -> bool:
        (leader, below), others = family.start(below=1), family.start()
        process = read_process(leader)
        assert process is not None
        found = leftovers.family({leader: process.started}, pids.look_at_all())
        return set(found) == {leader, below} and others[0] not in found

    assert family(check)


def test_a_process_is_held_by_pid_and_start_time() -> None:
    def check(family: Family) -> bool:
        (pid,) = family.start()
        process = read_process(pid)
        assert process is not None
        assert pids.hold_all({pid: process.started + 1}) == {}
        pidfd = pids.hold_all({pid: process.started}).get(pid)
        assert pidfd is not None
        pids.signal_processes({pid: process.started + 1}, signal.SIGKILL)
        assert family.alive(pid) == [True]
        pids.signal_processes({pid: process.started}, signal.SIGTERM)
        wait_readable(pidfd)
        os.close(pidfd)
        return True

    assert family(check)


def test_a_thread_with_the_number_of_a_process_is_no_process() -> None:
    """The others are still told: those of a service that was stopped for a moment would stay stopped otherwise."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert pids.hold(thread.native_id or 0) is None
        pids.continue_all({thread.native_id or 0: 1, os.getpid(): pids.start_time(os.getpid())})
    finally:
        over.set()
        thread.join()


def test_children_of_all_threads_are_found() -> None:
    """The kernel lists a child with the thread that has made it."""
    text = (
        "import os, subprocess, threading\n"
        "def start():\n"
        "    child = subprocess.Popen(['/bin/sleep', '1000'], stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    child.wait()\n"
        "threading.Thread(target=start).start()\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", text], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert descendants_of(process.pid, start_time(process.pid)) == {child: start_time(child)}
        finally:
            os.kill(child, signal.SIGKILL)
    assert descendants_of(process.pid, 1) == {}
