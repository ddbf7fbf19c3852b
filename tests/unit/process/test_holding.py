"""Processes that are held for a moment are let go, also where whoever holds them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from supervisor.errors import StepError
from supervisor.process import rotation
from supervisor.process.pids import read_process, start_time, stop_group
from tests.unit.process.cgroups import subtree
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_until

Hold = Callable[[], AbstractContextManager[None]]


class Family:
    """A process that leads its group, and a child in it that does the work."""

    def __init__(self) -> None:
        command = "sleep 1000 & echo $!; wait"
        self._leader = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, start_new_session=True)
        assert self._leader.stdout is not None
        self.leader = self._leader.pid
        self.child = int(self._leader.stdout.readline())
        self.started = start_time(self.leader)

    def are_stopped(self) -> bool:
        found = [read_process(pid) for pid in (self.leader, self.child)]
        return all(process is not None and process.state == "T" for process in found)

    def run(self) -> bool:
        found = [read_process(pid) for pid in (self.leader, self.child)]
        return all(process is not None and process.state != "T" for process in found)

    def kill_leader(self) -> None:
        self._leader.kill()
        self._leader.wait()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.leader, signal.SIGKILL)
        self._leader.communicate()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family()
    yield family
    family.end()


@pytest.fixture
def note(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "note", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def killed_while_it_holds(hold: Hold, is_held: Callable[[], bool]) -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with hold():
                os.write(write_end, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(write_end)
    try:
        assert os.read(read_end, 1) == b"x"
        assert is_held()
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert is_held()


def test_a_group_is_stopped_as_a_whole_and_goes_on(family: Family, note: int) -> None:
    with rotation.stopped(note, family.leader, family.started):
        assert family.are_stopped()
        assert os.fstat(note).st_size > 0
    wait_until(family.run)
    assert not rotation.let_go(note)


def test_a_group_goes_on_after_its_holder_was_killed(family: Family, note: int) -> None:
    killed_while_it_holds(lambda: rotation.stopped(note, family.leader, family.started), family.are_stopped)
    assert rotation.let_go(note)
    wait_until(family.run)
    assert not rotation.let_go(note)


def test_so_does_what_is_left_of_it(family: Family, note: int) -> None:
    killed_while_it_holds(lambda: rotation.stopped(note, family.leader, family.started), family.are_stopped)
    family.kill_leader()
    assert rotation.let_go(note)
    wait_until(lambda: (child := read_process(family.child)) is None or child.state != "T")


def test_nobody_else_is_stopped_or_goes_on(family: Family, note: int) -> None:
    with pytest.raises(StepError, match="cannot stop"), rotation.stopped(note, family.leader, family.started + 1):
        pass
    assert family.run()
    os.killpg(family.leader, signal.SIGSTOP)
    wait_until(family.are_stopped)
    with rotation.stopped(note, family.leader, family.started):
        assert os.fstat(note).st_size == 0
    os.pwrite(note, b'{"leader": %d, "started": %d}' % (family.leader, family.started + 1), 0)
    assert rotation.let_go(note)
    assert family.are_stopped()


def test_nobody_is_stopped_whose_leader_is_gone(family: Family) -> None:
    """The number may be that of another group."""
    family.kill_leader()
    assert not stop_group(family.leader, family.started)
    child = read_process(family.child)
    assert child is not None
    assert child.state != "T"


def test_a_note_that_was_cut_off_tells_of_nobody(note: int) -> None:
    os.pwrite(note, b'{"leader": 1, "sta', 0)
    assert not rotation.let_go(note)


@needs_root
def test_a_cgroup_goes_on_after_its_holder_was_killed(note: int) -> None:
    with subtree() as found:

        def is_frozen() -> bool:
            return "frozen 1" in Path(found.path, "cgroup.events").read_text()

        killed_while_it_holds(lambda: rotation.frozen(note, found.path), is_frozen)
        assert rotation.let_go(note)
        wait_until(lambda: not is_frozen())
