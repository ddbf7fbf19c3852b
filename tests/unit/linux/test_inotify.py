from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_CREATE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MODIFY,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    inotify_rm_watch,
    parse_events,
)


@pytest.fixture
def fd() -> Iterator[int]:
    fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    yield fd
    os.close(fd)


def events(fd: int) -> list[tuple[int, int, str]]:
    return parse_events(os.read(fd, 65536))


def test_what_is_made_in_a_folder(fd: int, tmp_path: Path) -> None:
    wd = inotify_add_watch(fd, str(tmp_path), IN_CREATE | IN_ONLYDIR)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a file with a name of some length").touch()
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    assert events(fd) == [
        (wd, IN_CREATE | IN_ISDIR, "folder"),
        (wd, IN_CREATE, "a file with a name of some length"),
        (wd, IN_CREATE | IN_ISDIR, "\udcff"),
    ]


def test_the_watched_thing_itself_has_no_name(fd: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    wd = inotify_add_watch(fd, str(path), IN_MODIFY)
    path.write_text("text")
    assert events(fd) == [(wd, IN_MODIFY, "")]


def test_the_same_inode_has_the_same_watch(fd: int, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "b")
    watches = {inotify_add_watch(fd, str(tmp_path / name), IN_MODIFY) for name in "ab"}
    assert len(watches) == 1


def test_the_end_of_a_watch(fd: int, tmp_path: Path) -> None:
    wd = inotify_add_watch(fd, str(tmp_path), IN_CREATE)
    inotify_rm_watch(fd, wd)
    assert IN_IGNORED.to_bytes(4, sys.byteorder) in (data := os.read(fd, 65536))
    assert parse_events(data) == []
    with pytest.raises(OSError, match="Invalid") as caught:
        inotify_rm_watch(fd, wd)
    assert caught.value.errno == errno.EINVAL


def test_errors_name_the_path(fd: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        inotify_add_watch(fd, str(tmp_path / "missing"), IN_CREATE)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        inotify_add_watch(fd, str(tmp_path / "file"), IN_CREATE | IN_ONLYDIR)
