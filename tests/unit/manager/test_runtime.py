from __future__ import annotations

import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from supervisor.errors import RuntimeFolderError
from supervisor.manager import runtime
from supervisor.manager.runtime import RuntimeFolder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_can_be_entered_by_services_of_any_user(tmp_path: Path) -> None:
    runtime = RuntimeFolder(str(tmp_path / "a/run"))
    runtime.claim()
    assert mode(tmp_path / "a/run") == 0o755
    assert mode(tmp_path / "a/run/notify") == 0o711
    assert (tmp_path / "a/run/pid").read_text() == f"{os.getpid()}\n"
    runtime.release()
    assert os.listdir(tmp_path / "a/run") == []


@pytest.mark.parametrize("private", [0o700, 0o750, 0o710])
def test_a_private_folder_stays_private(tmp_path: Path, private: int, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=private)
    runtime = RuntimeFolder(str(folder))
    with caplog.at_level("INFO"):
        runtime.claim()
    assert mode(folder) == private
    runtime.release()
    assert ("closed to other users" in caplog.text) == (os.geteuid() == 0)


def test_modes_are_narrowed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for path in (folder, folder / "notify", folder / "functions"):
        path.mkdir()
        path.chmod(0o2775)
    runtime = RuntimeFolder(str(folder))
    runtime.claim()
    assert (mode(folder), mode(folder / "notify"), mode(folder / "functions")) == (0o755, 0o711, 0o700)
    runtime.release()


def test_a_state_that_is_kept_can_be_used_by_the_next(tmp_path: Path) -> None:
    """A spawnd that cannot take over now, or is told to end before it has, leaves the state to the next one."""
    folder = tmp_path / "run"
    for _ in range(2):
        runtime = RuntimeFolder(str(folder))
        runtime.claim()
        (folder / "state").write_text("state")
        runtime.release()
    assert sorted(os.listdir(folder)) == ["control.d", "functions", "notify", "state"]


def test_what_a_lost_spawnd_left_is_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lost = RuntimeFolder(str(folder))
    lost.claim()
    os.close(lost.lock)
    for name in ("state", "state~"):
        (folder / name).write_text("garbage")
    for name in ("control", "contro~", "notify/a"):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(folder / name))
    runtime = RuntimeFolder(str(folder))
    runtime.claim()
    runtime.release()


def test_answers_that_nobody_waits_for_are_swept(tmp_path: Path) -> None:
    runtime = RuntimeFolder(str(tmp_path / "run"))
    runtime.claim()
    for name in ("stop:a", "start:b", "held:a", "stop:c:d", "denied"):
        (tmp_path / "run/functions" / name).touch()
    runtime.sweep_answers({"b"})
    assert sorted(os.listdir(tmp_path / "run/functions")) == ["denied", "held:a", "start:b"]
    runtime.release()
    assert sorted(os.listdir(tmp_path / "run/functions")) == ["denied", "held:a"]


def held_by_a_child(folder: Path, seconds: float, pid: int) -> int:
    """Return a child that holds the lock of a lost spawnd for a while; the file `pid` names another process."""
    lost = RuntimeFolder(str(folder))
    lost.claim()
    (folder / "pid").write_text(f"{pid}\n")
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os._exit(0)
    os.close(lost.lock)
    return child


@pytest.mark.parametrize("is_reused", [False, True])
def test_a_child_of_a_lost_spawnd_may_let_go_late(tmp_path: Path, is_reused: bool) -> None:
    """It has to run to do so. The number of the lost one may belong to any process by now."""
    pid = os.getppid()
    if not is_reused:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    child = held_by_a_child(tmp_path / "run", 1.0, pid)
    try:
        runtime = RuntimeFolder(str(tmp_path / "run"))
        runtime.claim()
        runtime.release()
    finally:
        os.waitpid(child, 0)


def test_a_supervisor_that_lives_is_told_at_once(tmp_path: Path) -> None:
    first = RuntimeFolder(str(tmp_path / "run"))
    first.claim()
    begun = time.monotonic()
    with pytest.raises(RuntimeFolderError, match=f"another supervisor does, pid {os.getpid()}"):
        RuntimeFolder(str(tmp_path / "run")).claim(3600.0)
    assert time.monotonic() - begun < 60
    first.release()


def test_a_lock_that_stays_is_blamed_on_nobody(tmp_path: Path) -> None:
    child = held_by_a_child(tmp_path / "run", 60.0, os.getppid())
    try:
        with pytest.raises(RuntimeFolderError, match="its lock is held by a process that is not the supervisor"):
            RuntimeFolder(str(tmp_path / "run")).claim(0.0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _snapshot(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("name", ["index.html", ".bashrc", "pid", "state", "state~"])
@pytest.mark.parametrize("folder_mode", [0o700, 0o755, 0o750])
def test_a_folder_with_a_file_of_others_is_left_as_it_was(tmp_path: Path, name: str, folder_mode: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_text("1234\n")
    folder.chmod(folder_mode)
    before = _snapshot(folder)
    with pytest.raises(RuntimeFolderError, match=f"it holds {name!r}, which is not spawnd's"):
        RuntimeFolder(str(folder)).claim()
    assert _snapshot(folder) == before


@pytest.mark.parametrize("name", ["sub", "pid", "state", "control"])
def test_a_folder_with_a_folder_of_others_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    (folder / "notify").mkdir(parents=True)
    (folder / name).mkdir()
    before = _snapshot(folder)
    with pytest.raises(RuntimeFolderError, match=f"it holds {name!r}, which is not spawnd's"):
        RuntimeFolder(str(folder)).claim()
    assert _snapshot(folder) == before


@pytest.mark.parametrize("name", ["notify", "pid", "control"])
def test_a_link_is_not_taken_for_a_thing_of_spawnd(tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "data", tmp_path / "other"
    other.mkdir(mode=0o700)
    folder.mkdir()
    (folder / name).symlink_to(other)
    before = _snapshot(tmp_path)
    with pytest.raises(RuntimeFolderError, match=f"it holds {name!r}"):
        RuntimeFolder(str(folder)).claim()
    assert _snapshot(tmp_path) == before


def test_a_link_that_is_set_while_the_folder_is_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of the group of a folder can write to it until its mode has been narrowed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o775)
    (folder / "notify").mkdir()
    narrow = runtime._narrow

    def narrow_late(fd: int, mode: int) -> bool:
        if not (folder / "pid").is_symlink():
            (folder / "pid").symlink_to(victim)
        return narrow(fd, mode)

    monkeypatch.setattr(runtime, "_narrow", narrow_late)
    with pytest.raises(RuntimeFolderError, match="pid"):
        RuntimeFolder(str(folder)).claim()
    assert victim.read_text() == "precious"
    assert mode(folder) == 0o755


def test_a_folder_that_anybody_can_write_to_is_left_as_it_is(tmp_path: Path) -> None:
    """Such as /tmp: with another mode it would be of no use to anybody else."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(RuntimeFolderError, match="all users can write to it"):
        RuntimeFolder(str(folder)).claim()
    assert mode(folder) == 0o1777
    assert os.listdir(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    os.chown(folder, 61234, 61234)
    with pytest.raises(RuntimeFolderError, match="it belongs to uid 61234"):
        RuntimeFolder(str(folder)).claim()
