from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from supervisor.definitions.service import Service
from supervisor.process.files import Rights
from supervisor.process.marks import Marked, living_relatives, may_name, name_of, read_pid_file, start_mark, tops
from supervisor.process.pids import Process, read_process, runs_as
from tests.daemon import wait_until

NOBODY = Rights(65534, 65534)
LAST_PID = 4194304  # PID_MAX_LIMIT, which no process has


@pytest.mark.parametrize(("text", "pid"), [("12\n", 12), (" 7 ", 7), ("0012", 12)])
def test_pid_files(tmp_path: Path, text: str, pid: int) -> None:
    (tmp_path / "pid").write_text(text)
    assert read_pid_file(str(tmp_path / "pid"), NOBODY)[0] == pid


@pytest.mark.parametrize(
    ("mode", "owner", "is_roots"), [(0o644, 0, True), (0o664, 0, False), (0o666, 0, False), (0o644, 65534, False)]
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes files of users")
def test_a_pid_file_that_others_may_write_to_is_not_roots(
    tmp_path: Path, mode: int, owner: int, is_roots: bool
) -> None:
    path = tmp_path / "pid"
    path.write_text("12")
    path.chmod(mode)
    os.chown(path, owner, -1)
    assert read_pid_file(str(path), Rights(owner, 65534)) == (12, is_roots)


@pytest.mark.parametrize("is_roots", [True, False])
def test_a_pid_file_names_processes_of_the_user_alone(is_roots: bool) -> None:
    ours = os.geteuid()
    assert may_name(Service("s", uid=ours), os.getpid(), is_roots=is_roots)
    assert not may_name(Service("s", uid=ours + 1), os.getpid(), is_roots=is_roots)
    assert may_name(Service("s", uid=0), LAST_PID, is_roots=is_roots) == is_roots
    assert not may_name(Service("s", uid=ours + 1), LAST_PID, is_roots=is_roots)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes its user")
def test_a_process_with_two_user_ids_runs_as_neither() -> None:
    pid = os.posix_spawn(
        sys.executable, [sys.executable, "-ISc", "import os, time; os.seteuid(65534); time.sleep(1000)"], {}
    )
    try:
        wait_until(lambda: b"\nUid:\t0\t65534" in Path(f"/proc/{pid}/status").read_bytes(), "its other user id")
        assert not runs_as(pid, 0)
        assert not runs_as(pid, 65534)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("text", ["", "x", "-1", "1 2", "1" * 100, "\0"])
def test_pid_files_without_a_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    with pytest.raises(OSError, match="no process id") as caught:
        read_pid_file(str(tmp_path / "pid"), NOBODY)
    assert caught.value.errno == errno.EINVAL


def test_a_fifo_is_no_pid_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    with pytest.raises(OSError, match="no process id"):
        read_pid_file(str(tmp_path / "pid"), NOBODY)


def test_names_of_processes() -> None:
    assert name_of(os.getpid()) == Path("/proc/self/comm").read_text().rstrip("\n")
    assert name_of(LAST_PID) == ""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        wait_until(lambda: name_of(pid) == "", "the end of the process, which is a zombie then")
    finally:
        os.waitpid(pid, 0)


def process(pid: int, parent: int) -> Process:
    return Process(pid, "S", parent, pid, pid, 1)


def test_tops() -> None:
    found = {pid: process(pid, parent) for pid, parent in ((5, 1), (6, 5), (7, 6), (8, 1))}
    assert [each.pid for each in tops(found)] == [5, 8]


def test_orphans_are_known_by_the_marks_of_service_and_start() -> None:
    """A child of ours stands for an orphan: who was the first process is gone, whatever has its number."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True)
    try:
        wait_until(lambda: os.getsid(pid) == pid, "its session")
        own = read_process(pid)
        assert own is not None
        orphans = {pid: Marked(own.started, "word", start_mark(1, 5))}
        assert living_relatives({1: 5}, "word", orphans).keys() == {pid}
        assert living_relatives({1: 6}, "word", orphans) == {}
        assert living_relatives({1: 5}, "other", orphans) == {}
        assert living_relatives({1: 5}, "", {pid: Marked(own.started, "", start_mark(1, 5))}) == {}
        assert living_relatives({1: 5}, "word", {}) == {}
        assert living_relatives({1: 5}, "word", {pid: Marked(own.started - 1, "word", start_mark(1, 5))}) == {}
        assert living_relatives({pid: own.started}, "word", {}).keys() == {pid}
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
