"""Which files are read, and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.definitions import files as module
from supervisor.definitions.files import Files, Source
from supervisor.definitions.problems import Problems


def read_all(*paths: Path, root: bool = False) -> tuple[list[Source], list[str], list[str]]:
    problems = Problems()
    files = Files(problems, root=root)
    sources = [files.read(path) for path in files.expand([os.fspath(path) for path in paths])]
    return [source for source in sources if source], problems.texts(), problems.notices()


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.lua", "a.lua", "c.lua~", "c.txt", ".hidden.lua", "10.lua"):
        (tmp_path / name).write_text(name)
    sources, problems, _ = read_all(tmp_path)
    assert [source.text for source in sources] == ["10.lua", "a.lua", "b.lua"]
    assert problems == []


def test_missing_and_unreadable(tmp_path: Path) -> None:
    (tmp_path / "folder.lua").mkdir()
    os.mkfifo(tmp_path / "fifo.lua")
    (tmp_path / "broken.lua").symlink_to("nowhere")
    (tmp_path / "latin.lua").write_bytes(b"-- \n-- \xe4\n")
    _, problems, _ = read_all(tmp_path, tmp_path / "missing")
    assert sorted(problem.replace(f"{tmp_path}/", "") for problem in problems) == [
        "broken.lua:1: cannot read: No such file or directory",
        "fifo.lua:1: cannot read: not a regular file",
        "folder.lua:1: cannot read: not a regular file",
        "latin.lua:2: cannot use: its byte \\xe4 is not UTF-8",
        "missing:1: cannot read: No such file or directory",
    ]


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.lua"
    path.write_bytes(b" " * module.MAX_FILE)
    assert read_all(path)[1] == []
    path.write_bytes(b" " * (module.MAX_FILE + 1))
    assert read_all(path)[1] == [f"{path}:1: cannot use: larger than 1 MiB"]


def test_too_large_together(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.lua").write_bytes(b" " * module.MAX_FILE)
    sources, problems, _ = read_all(tmp_path)
    assert len(sources) == 8
    assert problems == [f"{tmp_path}/8.lua:1: cannot use: all definitions together are larger than 8 MiB"]


def test_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.lua"
    path.write_text("")
    (tmp_path / "b.lua").symlink_to(path)
    _, problems, _ = read_all(tmp_path, path)
    assert problems == [f"{tmp_path}/b.lua:1: cannot use: the same file as {path}", f"{path}:1: given twice"]


@pytest.mark.parametrize(("times", "fine"), [(module.TRIES - 1, True), (module.TRIES, False)])
def test_changed_while_it_is_read(tmp_path: Path, times: int, fine: bool) -> None:
    path = tmp_path / "a.lua"
    path.write_text("0")
    changes = 0

    def read(fd: int, size: int) -> bytes:
        nonlocal changes
        data = os.read(fd, size)
        if not data and changes < times:
            changes += 1
            with open(path, "a") as file:
                file.write(str(changes))
        return data

    problems = Problems()
    source = Files(problems, root=False, read=read).read(os.fspath(path))
    if fine:
        assert source == Source(os.fspath(path), "".join(map(str, range(times + 1))))
        assert not problems
    else:
        assert source is None
        assert problems.texts() == [
            f"{path}:1: cannot read: it changed while it was read, {module.TRIES} times in a row"
        ]


def test_same_size_but_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.lua"
    path.write_text("aaaa")
    os.utime(path, ns=(1, 1))
    first = True

    def read(fd: int, size: int) -> bytes:
        nonlocal first
        data = os.read(fd, 2)
        if first:
            first = False
            path.write_text("bbbb")
        return data

    source = Files(Problems(), root=False, read=read).read(os.fspath(path))
    assert source is not None
    assert source.text == "bbbb"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_whoever_can_write_a_definition_is_noted(tmp_path: Path) -> None:
    for name, mode, owner in (("a", 0o644, 0), ("b", 0o664, 0), ("c", 0o646, 0), ("d", 0o600, 1)):
        path = tmp_path / f"{name}.lua"
        path.write_text("")
        path.chmod(mode)
        os.chown(path, owner, owner)
    tmp_path.chmod(0o777)
    notices = [notice.replace(f"{tmp_path}", "T") for notice in read_all(tmp_path, root=True)[2]]
    assert notices == [
        "T:1: can be written by others, who become root through it",
        "T/b.lua:1: can be written by its group, who become root through it",
        "T/c.lua:1: can be written by others, who become root through it",
        "T/d.lua:1: belongs to user 1, who becomes root through it",
    ]
    assert read_all(tmp_path, root=False)[2] == []
