"""Reaping, in a process that is a subreaper and has no other children."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import prctl
import pytest

from supervisor.process.children import TRIES, AnsweringChild, Children, Exit, signal_name
from supervisor.process.pids import read_process
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.waiting import checked_loop, child_process, run_until, wait_readable, wait_until

T = TypeVar("T")


def in_subreaper(function: Callable[[], T]) -> T:
    """The result of `function` in a process to which orphans come, which leaves none behind."""

    def run() -> T:
        prctl.set_child_subreaper(1)
        return function()

    return in_child(run)


def leave(status: int) -> int:
    """A child that exits with a status at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return pid


def wait_dead(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    wait_readable(pidfd)
    os.close(pidfd)


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


class Owner:
    """Notes what it is told, and what the kernel says of the process in that moment."""

    def __init__(self, fails: str = "") -> None:
        self.heard: list[tuple[str, int, object]] = []
        self._fails = fails

    def died(self, pid: int) -> None:
        process = read_process(pid)
        self.heard.append(("died", pid, process.state if process else None))
        if self._fails == "died":
            raise ValueError("in died")

    def reaped(self, pid: int, exit: Exit) -> None:
        self.heard.append(("reaped", pid, (exit, exists(pid))))
        if self._fails == "reaped":
            raise ValueError("in reaped")


def no_orphans(pid: int, exit: Exit) -> None:
    raise AssertionError(f"orphan {pid}: {exit}")


def test_an_owner_hears_of_the_death_before_the_reaping_and_of_the_reaping_after_it() -> None:
    def check() -> bool:
        children, owner = Children(no_orphans), Owner()
        pid = leave(3)
        children.register(pid, owner)
        wait_dead(pid)
        children.reap()
        assert owner.heard == [("died", pid, "Z"), ("reaped", pid, (Exit(status=3), False))]
        return children.any_left()

    assert in_subreaper(check) is False


def test_the_dead_leader_s_group_can_be_killed_before_the_reaping() -> None:
    """Its id cannot be another's yet."""

    def check() -> list[str]:
        read_end, write_end = os.pipe()
        leader = os.fork()
        if leader == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write_end, b"!")
                signal.pause()
            os.read(read_end, 1)
            os._exit(0)

        class Killer(Owner):
            def died(self, pid: int) -> None:
                os.killpg(pid, signal.SIGKILL)

        orphans: list[str] = []
        children = Children(lambda _pid, exit: orphans.append(exit.describe()))
        children.register(leader, Killer())

        def gone() -> list[str]:
            children.reap()
            return orphans

        wait_until(gone)
        return orphans

    assert in_subreaper(check) == ["killed by KILL"]


def test_one_that_stays_dead_for_its_owner_hides_no_other() -> None:
    class Slow(Owner):
        def died(self, pid: int) -> bool:  # type: ignore[override]
            super().died(pid)
            return False

    def check() -> tuple[list[str], list[str], list[int]]:
        orphans: list[int] = []
        children, slow, other = Children(lambda pid, exit: orphans.append(exit.status)), Slow(), Owner()
        first = leave(1)
        children.register(first, slow)
        wait_dead(first)
        children.reap()
        second, orphan = leave(2), leave(3)
        children.register(second, other)
        wait_dead(second)
        wait_dead(orphan)
        children.reap()
        children.reap()
        assert exists(first)
        assert not orphans
        assert not exists(second)
        children.finish(first)
        assert not children.any_left()
        return [what for what, *_ in slow.heard], [what for what, *_ in other.heard], orphans

    assert in_subreaper(check) == (["died", "reaped"], ["died", "reaped"], [3])


def test_orphans_come_to_the_subreaper_and_are_reaped() -> None:
    def check() -> tuple[int, int]:
        orphans: list[int] = []
        children, owner = Children(lambda pid, exit: orphans.append(exit.status)), Owner()
        parent = os.fork()
        if parent == 0:
            for status in range(5, 15):
                leave(status)
            os._exit(0)
        children.register(parent, owner)

        def all_gone() -> bool:
            children.reap()
            return not children.any_left()

        wait_until(all_gone)
        assert sorted(orphans) == list(range(5, 15))
        return len(orphans), len(owner.heard)

    assert in_subreaper(check) == (10, 2)


def test_one_that_was_dead_before_it_was_registered_is_not_missed() -> None:
    def check() -> list[str]:
        children, owner = Children(no_orphans), Owner()
        pid = leave(0)
        wait_dead(pid)
        children.register(pid, owner)
        children.reap()
        return [what for what, _, _ in owner.heard]

    assert in_subreaper(check) == ["died", "reaped"]


def test_the_living_are_left_alone() -> None:
    def check() -> tuple[int, bool]:
        children, owner = Children(no_orphans), Owner()
        with child_process(signal.pause) as pid:
            children.register(pid, owner)
            children.reap()
            return len(owner.heard), children.any_left()

    assert in_subreaper(check) == (0, True)


def test_without_children_there_is_nothing_to_reap() -> None:
    def check() -> bool:
        children = Children(no_orphans)
        children.reap()
        return children.any_left()

    assert in_subreaper(check) is False


def test_hundreds_that_die_at_once_are_all_reaped() -> None:
    def check() -> bool:
        children = Children(no_orphans)
        owners = {}
        for number in range(300):
            pid = leave(number % 200)
            owners[pid] = number % 200, Owner()
            children.register(pid, owners[pid][1])
        for pid in owners:
            wait_dead(pid)
        children.reap()
        assert not children.any_left()
        return all(
            owner.heard == [("died", pid, "Z"), ("reaped", pid, (Exit(status=status), False))]
            for pid, (status, owner) in owners.items()
        )

    assert in_subreaper(check)


@pytest.mark.parametrize("fails", ["died", "reaped"])
def test_an_exception_of_one_owner_keeps_nobody_from_being_reaped(fails: str) -> None:
    def check() -> tuple[list[str], list[list[str]], bool]:
        children = Children(no_orphans)
        owners = [Owner(fails), Owner(fails), Owner()]
        pids = [leave(0) for _ in owners]
        for pid, owner in zip(pids, owners, strict=True):
            children.register(pid, owner)
            wait_dead(pid)
        told: list[str] = []
        try:
            children.reap()
        except* ValueError as group:
            told = [str(error) for error in group.exceptions]
        heard = [[what for what, _, _ in owner.heard] for owner in owners]
        return told, heard, children.any_left()

    told, heard, any_left = in_subreaper(check)
    assert told == [f"in {fails}"] * 2
    assert heard == [["died", "reaped"]] * 3, "an owner would signal a pid that is somebody else's"
    assert not any_left


def test_an_exception_about_an_orphan_keeps_nobody_from_being_reaped() -> None:
    def check() -> tuple[int, bool]:
        children = Children(no_orphans)
        for _ in range(3):
            wait_dead(leave(0))
        errors = 0
        try:
            children.reap()
        except* AssertionError as group:
            errors = len(group.exceptions)
        return errors, children.any_left()

    assert in_subreaper(check) == (3, False)


def _end(how: Callable[[], object]) -> Exit:
    def check() -> Exit:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ends: list[Exit] = []
        children = Children(lambda _pid, exit: ends.append(exit))
        pid = os.fork()
        if pid == 0:
            how()
            signal.pause()
        wait_dead(pid)
        children.reap()
        return ends[0]

    return in_subreaper(check)


def test_an_exit_tells_the_status() -> None:
    assert _end(lambda: os._exit(255)) == Exit(status=255)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGRTMIN + 2])
def test_a_kill_tells_the_signal(signum: int) -> None:
    assert _end(lambda: os.kill(os.getpid(), signum)) == Exit(signum=signum)


@pytest.mark.parametrize(
    ("exit", "clean", "text"),
    [
        (Exit(), True, "exited with status 0"),
        (Exit(status=1), False, "exited with status 1"),
        (Exit(signum=signal.SIGTERM), True, "killed by TERM"),
        (Exit(signum=signal.SIGINT), True, "killed by INT"),
        (Exit(signum=signal.SIGHUP), True, "killed by HUP"),
        (Exit(signum=signal.SIGPIPE), True, "killed by PIPE"),
        (Exit(signum=signal.SIGKILL), False, "killed by KILL"),
        (Exit(signum=signal.SIGSEGV, core=True), False, "killed by SEGV (core dumped)"),
        (Exit(signum=signal.SIGRTMIN + 1), False, "killed by RTMIN+1"),
    ],
)
def test_what_an_end_is_called_and_whether_it_was_a_good_one(exit: Exit, clean: bool, text: str) -> None:
    assert exit.clean is clean
    assert exit.describe() == text


@pytest.mark.parametrize(
    ("signum", "name"),
    [(1, "HUP"), (9, "KILL"), (34, "RTMIN"), (35, "RTMIN+1"), (64, "RTMIN+30"), (32, "signal 32"), (99, "signal 99")],
)
def test_signals_have_the_names_of_kill(signum: int, name: str) -> None:
    assert signal_name(signum) == name


def ask(answer: Callable[[int], object], limit: float = 20, kept: Collection[int] = ()) -> list[tuple[bytes, bool]]:
    """Return the end of a child, once it is reaped."""
    found: list[tuple[bytes, bool]] = []
    with checked_loop() as loop:
        children = Children(lambda _pid, _exit: None)
        loop.on_signal(signal.SIGCHLD, children.reap)
        AnsweringChild(loop, children, answer, limit, lambda data, in_time: found.append((data, in_time)), kept)
        run_until(loop, lambda: found and not Children.any_left())
    return found


def test_its_answer_comes_in_time() -> None:
    assert in_child(lambda: ask(lambda fd: os.write(fd, b"x" * 100_000))) == [(b"x" * 100_000, True)]


def test_it_has_no_descriptor_but_the_pipe() -> None:
    def answer(fd: int) -> None:
        opened = {os.readlink(f"/proc/self/fd/{number}") for number in open_numbers()}
        os.write(fd, str(opened == {os.readlink(f"/proc/self/fd/{fd}")}).encode())

    assert in_child(lambda: ask(answer)) == [(b"True", True)]


def test_a_late_child_is_killed() -> None:
    def answer(fd: int) -> None:
        os.write(fd, b"some")
        signal.pause()

    assert in_child(lambda: ask(answer, 0.1)) == [(b"some", False)]


def test_a_child_that_dies_is_made_again(tmp_path: Path) -> None:
    def answer(fd: int) -> None:
        with (tmp_path / "tries").open("a") as file:
            file.write("x")
        os.write(fd, b"some")
        if (tmp_path / "tries").stat().st_size < TRIES:
            signal.raise_signal(signal.SIGKILL)

    assert in_child(lambda: ask(answer)) == [(b"some", True)]
    assert (tmp_path / "tries").stat().st_size == TRIES


def test_children_that_die_have_no_answer(tmp_path: Path) -> None:
    def answer(fd: int) -> None:
        with (tmp_path / "tries").open("a") as file:
            file.write("x")
        os.write(fd, b"some")
        signal.raise_signal(signal.SIGKILL)

    assert in_child(lambda: ask(answer)) == [(b"", True)]
    assert (tmp_path / "tries").stat().st_size == TRIES


def test_a_child_that_has_descriptors_is_not_made_again() -> None:
    def answer(fd: int) -> None:
        os.write(fd, b"some")
        signal.raise_signal(signal.SIGKILL)

    with open("/dev/null") as file:
        assert in_child(lambda: ask(answer, kept=[file.fileno()])) == [(b"", True)]
