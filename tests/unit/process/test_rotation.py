"""Files that begin anew under who writes to them."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from supervisor.errors import StepError
from supervisor.process.rotation import begin_anew


class Log:
    """A log that somebody has open, and that was moved."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log"
        self.old = folder / "log.1"
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.write(self.fd, b"one\n")
        self.path.rename(self.old)

    def begin_anew(self) -> None:
        begin_anew(self.fd, str(self.path), nullcontext)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    os.close(log.fd)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_log_begins_anew_and_the_old_one_is_whole(log: Log) -> None:
    os.utime(log.old, (1, 1))
    log.begin_anew()
    os.write(log.fd, b"two\n")
    assert (log.old.read_text(), log.path.read_text()) == ("one\n", "two\n")
    assert log.old.stat().st_mtime == 1
    assert log.old.stat().st_mode & 0o777 == log.path.stat().st_mode & 0o777 == 0o640
    log.begin_anew()  # there is nothing to do
    assert log.path.read_text() == "two\n"


def test_the_mode_of_a_new_empty_file_is_that_of_the_log(log: Log) -> None:
    log.path.touch()
    log.path.chmod(0o600)
    log.begin_anew()
    assert log.path.stat().st_mode & 0o777 == 0o600


def refuse(log: Log, cause: str) -> None:
    with pytest.raises(StepError, match=cause) as caught:
        log.begin_anew()
    assert str(caught.value).startswith(f"cannot reopen '{log.path}': ")


def test_a_file_with_content_stays(log: Log) -> None:
    log.path.write_text("other")
    refuse(log, "another file, which is not empty")
    assert log.path.read_text() == "other"


def test_a_file_in_another_folder_stays(log: Log, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    log.old.rename(tmp_path / "archive/log.1")
    refuse(log, "it was moved elsewhere")


def test_a_file_that_was_deleted(log: Log) -> None:
    log.old.unlink()
    refuse(log, "was deleted")


def test_a_file_with_two_names(log: Log, tmp_path: Path) -> None:
    os.link(log.old, tmp_path / "link")
    refuse(log, "has several names")
    assert (tmp_path / "link").read_text() == "one\n"


def test_a_process_that_is_killed_leaves_nothing_behind(log: Log) -> None:
    @contextmanager
    def dies() -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield

    pid = os.fork()
    if pid == 0:
        begin_anew(log.fd, str(log.path), dies)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert [path.name for path in log.path.parent.iterdir()] == ["log.1"]
    log.begin_anew()
    assert (log.old.read_text(), log.path.read_text()) == ("one\n", "")


def test_a_file_system_without_files_without_names(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def refuses(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return original(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(ValueError, match="of hold"):
        begin_anew(log.fd, str(log.path), fails)
    assert [path.name for path in log.path.parent.iterdir()] == ["log.1"]
    log.begin_anew()
    assert (log.old.read_text(), log.path.read_text()) == ("one\n", "")


def fails() -> NoReturn:
    raise ValueError("of hold")
