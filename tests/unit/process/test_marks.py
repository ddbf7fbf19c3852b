"""Marks of processes that left their service, in a process that is a subreaper."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import marks
from supervisor.process.children import Child, Children, start_child
from supervisor.process.leftovers import descendants_of
from supervisor.process.marks import (
    LONGEST,
    SERVICE_MARK,
    START_MARK,
    Marked,
    MarkReader,
    marks_in,
    orphans_but,
    parse_marks,
    start_mark,
    tell_all_marks,
    with_mark,
)
from supervisor.process.pids import Process, read_process, start_time
from tests import fuse
from tests.hung import is_hung, start_hung
from tests.unit.process.family import Family, family
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.waiting import DEADLINE, checked_loop, read_until, run_until, wait_exit, wait_until

BOTH = {SERVICE_MARK: "abc", START_MARK: "12"}


@contextmanager
def started_with(*envs: Mapping[str, str]) -> Iterator[list[int]]:
    """Processes in sessions of their own, each with such an environment from its start."""
    pids = []
    try:
        for env in envs:
            pid = os.posix_spawn("/bin/sleep", ["sleep", "100000"], env, setsid=True)
            pids.append(pid)
            wait_until(lambda pid=pid: os.getsid(pid) == pid)  # type: ignore[misc]
            if env:
                wait_until(lambda pid=pid: has_environment(pid))  # type: ignore[misc]
        yield pids
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # a test has ended it, and this process has reaped it
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def has_environment(pid: int) -> bool:
    """Whether the kernel has gone so far with an exec that the environment is there: the spawn returns before that."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        return bool(file.read())


def started(pid: int) -> int:
    process = read_process(pid)
    assert process is not None
    return process.started


class CountedChildren(Children):
    """Children that tell how many have been registered."""

    def __init__(self) -> None:
        super().__init__(lambda _pid, _exit: None)
        self.count = 0

    def register(self, pid: int, child: Child) -> None:
        self.count += 1
        super().register(pid, child)


def look(times: int = 1) -> tuple[dict[int, Marked], int]:
    """The orphans after some looks that are asked for at once, and how many children have read them."""
    children = CountedChildren()
    with checked_loop() as loop:
        loop.on_signal(signal.SIGCHLD, children.reap)
        reader = MarkReader(loop, children)
        answers: list[Mapping[int, Marked]] = []
        for _ in range(times):
            reader.look(lambda: answers.append(reader.orphans()))
        run_until(loop, lambda: len(answers) == times)
        readers = children.count
        reader.look(lambda: answers.append(reader.orphans()))
        run_until(loop, lambda: len(answers) == times + 1)
        assert children.count == readers, "each of them is read once"
        assert answers[-1] == answers[0]
        return dict(answers[0]), readers


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the child time on an emulated processor, where a test is not about its limits."""
    monkeypatch.setattr(marks, "READ_LIMIT", 20.0)
    monkeypatch.setattr(marks, "TIME_LIMIT", 40.0)


def test_processes_with_a_mark_are_found_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not be children, as those of a spawnd that was lost."""
    be_patient(monkeypatch)
    children = Children(lambda _pid, _exit: None)
    with started_with({SERVICE_MARK: "abc"}, {SERVICE_MARK: "other"}, {}, {SERVICE_MARK: "abc"}) as pids:
        before = open_numbers()
        found: list[Process] = []

        def look_again() -> bool:
            found[:] = with_mark("abc", os.getuid(), children.when_reaped)
            return bool(found)

        wait_until(look_again)  # a look gives up after some seconds, in which a busy machine may not read all
        assert [(each.pid, each.started) for each in found] == [(pid, started(pid)) for pid in (pids[0], pids[3])]
        assert with_mark("", os.getuid(), children.when_reaped) == []
        assert with_mark("abc", os.getuid() + 1, children.when_reaped) == []
        assert open_numbers() == before
        for reader in children.pids():
            wait_until(lambda pid=reader: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))  # type: ignore[misc]
        children.reap()


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ("SPAWND_MARK=abc123", ("abc123", "")),
        ("INVOCATION_ID=5\0A=1", ("", "5")),
        ("A=SPAWND_MARK=x\0INVOCATION_ID=5\0SPAWND_MARK=b", ("b", "5")),
        ("SPAWND_MARK=a\0SPAWND_MARK=b", ("a", "")),
        ("SPAWND_MARK=a b\nc", ("", "")),
        (f"SPAWND_MARK={'a' * LONGEST}\0INVOCATION_ID={'a' * (LONGEST + 1)}", ("a" * LONGEST, "")),
        ("XSPAWND_MARK=a\0SPAWND_MARK", ("", "")),
        ("", ("", "")),
    ],
)
def test_marks_are_what_the_environment_says(environment: str, found: tuple[str, str]) -> None:
    assert marks_in(environment.encode()) == found


def test_the_mark_of_a_start_is_no_other_one_s() -> None:
    assert len(start_mark(2**22, 2**40)) == LONGEST
    assert start_mark(1, 2) != start_mark(2, 1)
    assert marks_in(f"{START_MARK}={start_mark(1, 2)}".encode()) == ("", start_mark(1, 2))


def test_a_child_reads_the_marks_and_holds_nothing() -> None:
    def check() -> tuple[bool, bool]:
        with started_with(BOTH, {}) as (one, two):
            before = open_numbers()
            pid, fd = start_child(lambda fd: tell_all_marks(fd, [one, two, 2**22 + 1]))
            try:
                found = parse_marks(read_until(fd, lambda data: data.count(b"\n") == 3))
                assert wait_exit(pid) == 0
            finally:
                os.close(fd)
        return found == {one: ("abc", "12"), two: ("", ""), 2**22 + 1: ("", "")}, open_numbers() == before

    assert in_child(check) == (True, True)


@pytest.mark.parametrize("ends", [True, False])
def test_the_end_of_an_execve_is_waited_for(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """Its process has no environment yet, for as long as it waits for the processor."""
    opened: list[str] = []

    def in_execve(path: str, *arguments: Any, **keys: Any) -> io.BytesIO:
        opened.append(path)
        with open(path, *arguments, **keys) as file:
            data = file.read()
        if ends and len(opened) > 40:
            return io.BytesIO(data)
        return io.BytesIO(b"1 (sleep) S" + b" 0" * 49 if path.endswith("/stat") else b"")

    with started_with(BOTH) as (pid,):
        monkeypatch.setattr(marks, "open", in_execve, raising=False)
        deadline = time.monotonic() + (DEADLINE if ends else 0.1)
        found = marks_in(marks._read_environment(pid, deadline))
    assert found == (("abc", "12") if ends else ("", ""))


def test_each_orphan_is_read_once_whoever_asks() -> None:
    def check() -> bool:
        with started_with(BOTH, {}) as (one, two):
            found, readers = look(3)
            return found == {one: Marked(started(one), "abc", "12"), two: Marked(started(two))} and readers == 1

    assert in_child(check)


def test_more_than_a_child_reads_are_read_by_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "AT_ONCE", 2)

    def check() -> bool:
        with started_with(*({SERVICE_MARK: f"m{number}"} for number in range(5))) as pids:
            found, readers = look()
            return [found[pid].service for pid in pids] == [f"m{number}" for number in range(5)] and readers == 3

    assert in_child(check)


def test_nobody_forks_for_no_orphans() -> None:
    assert in_child(lambda: look(2)) == ({}, 0)


def test_a_child_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "TIME_LIMIT", 0.1)
    monkeypatch.setattr(marks, "tell_all_marks", lambda _fd, _pids: signal.pause())

    def check() -> bool:
        with started_with(BOTH) as (one,):
            return look()[0] == {one: Marked(started(one))}

    assert in_child(check)


def test_a_reader_that_is_killed_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise the orphan would be left alone for good, as each is read once."""
    be_patient(monkeypatch)

    def dies_once(fd: int, pids: Iterable[int]) -> None:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            signal.raise_signal(signal.SIGKILL)
        tell_all_marks(fd, pids)

    monkeypatch.setattr(marks, "tell_all_marks", dies_once)

    def check() -> bool:
        with started_with(BOTH) as (one,):
            found = look() == ({one: Marked(started(one), "abc", "12")}, 2)
            (tmp_path / "died").unlink()
            children = Children(lambda _pid, _exit: None)
            return found and [each.pid for each in with_mark("abc", os.getuid(), children.when_reaped)] == [one]

    assert in_child(check)


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_process_that_hangs_keeps_the_marks_of_no_other_back() -> None:
    """Its environment cannot be read, for as long as its mmap lock is held; the limit is long enough under load."""

    def check(path: str) -> bool:
        hung = [start_hung(path, BOTH) for _ in range(2)]
        try:
            for pid in hung:
                wait_until(lambda pid=pid: is_hung(pid))  # type: ignore[misc]
            with started_with(BOTH) as (one,):
                found, readers = look()
                assert all(map(is_hung, hung))
                expected = {pid: Marked(started(pid)) for pid in hung} | {one: Marked(started(one), "abc", "12")}
                assert found == expected
                return readers == 1
        finally:
            for pid in hung:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    with fuse.unanswering(fuse.READ) as path:
        assert in_child(lambda: check(path))


def test_children_are_told_but_for_those_that_are_known_in_our_session_or_dead() -> None:
    def check(family: Family) -> bool:
        (ours,), (known,) = family.start(), family.start(session=True)
        other, below = family.start(session=True, below=1)
        (dead,) = family.start(session=True)
        os.kill(dead, signal.SIGKILL)
        os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
        return orphans_but({known}) == {other: started(other)} and not {ours, below} & orphans_but({known}).keys()

    assert family(check)


def test_what_is_no_answer_says_nothing() -> None:
    assert parse_marks(b"") == {}
    assert parse_marks(b"12  \n13 abc 5\n14 a") == {12: ("", ""), 13: ("abc", "5")}


def test_descendants_are_asked_of_each_process() -> None:
    def check(family: Family) -> bool:
        chain, other = family.start(session=True, below=3), family.start()
        started = start_time(chain[0])
        assert descendants_of(chain[0], started + 1) == {}
        found = descendants_of(chain[0], started)
        return set(found) == set(chain[1:]) and other[0] not in found

    assert family(check)
    assert descendants_of(2**22 + 1, 1) == {}
