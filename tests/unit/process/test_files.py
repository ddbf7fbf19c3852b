from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.errors import ServedFileError, StepError
from supervisor.process.files import open_file
from tests.unit.process.forked import in_child, open_numbers, step_error
from tests.unit.process.requirements import needs_root

NOBODY = 65534


def file(path: Path | str, access: str, **options: Any) -> Descriptor:
    return Descriptor("file", path=str(path), access=access, **options)


def flags(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)


@pytest.mark.parametrize(
    ("access", "mode", "after"),
    [
        ("r", os.O_RDONLY, b"old"),
        ("r+", os.O_RDWR, b"old"),
        ("w", os.O_WRONLY, b""),
        ("w+", os.O_RDWR, b""),
        ("a", os.O_WRONLY, b"old"),
        ("a+", os.O_RDWR, b"old"),
    ],
)
def test_an_existing_file(tmp_path: Path, access: str, mode: int, after: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o604)
    fd = open_file(file(path, access, mode=0o777))
    try:
        assert flags(fd) & os.O_ACCMODE == mode
        assert bool(flags(fd) & os.O_APPEND) == access.startswith("a")
        assert os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        assert path.read_bytes() == after
        assert stat.S_IMODE(path.stat().st_mode) == 0o604, "mode is for files that are created"
    finally:
        os.close(fd)


@pytest.mark.parametrize("access", ["w", "w+", "a", "a+"])
@pytest.mark.parametrize(("mode", "expected"), [(None, 0o640), (0o666, 0o666), (0o600, 0o600)])
def test_a_created_file_has_its_mode_under_any_umask(
    tmp_path: Path, access: str, mode: int | None, expected: int
) -> None:
    path = tmp_path / "file"
    umask = os.umask(0o077)
    try:
        os.close(open_file(file(path, access, mode=mode)))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == expected


@needs_root
def test_a_created_file_has_its_owner_and_a_found_one_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.close(open_file(file(path, "a", owner=12, group=13)))
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 13)
    os.close(open_file(file(path, "a", owner=14, group=15)))
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 13)


def test_a_file_that_cannot_be_given_away_does_not_stay(world: Path) -> None:
    path = world / "file"

    def open_as_nobody() -> tuple[tuple[str, str, int], bool]:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        before = open_numbers()
        error = step_error(lambda: open_file(file(path, "w", owner=0)))
        return error, open_numbers() == before

    assert in_child(open_as_nobody) == (("change owner", str(path), errno.EPERM), True)
    assert not path.exists()


@pytest.mark.parametrize("access", ["r", "r+", "w", "a"])
def test_a_missing_folder(tmp_path: Path, access: str) -> None:
    path = tmp_path / "nowhere" / "file"
    before = open_numbers()
    assert step_error(lambda: open_file(file(path, access))) == ("open", str(path), errno.ENOENT)
    assert open_numbers() == before


@pytest.mark.parametrize("access", ["r", "r+"])
def test_what_is_read_is_not_created(tmp_path: Path, access: str) -> None:
    path = tmp_path / "file"
    assert step_error(lambda: open_file(file(path, access))) == ("open", str(path), errno.ENOENT)
    assert not path.exists()


def test_a_folder_is_not_written(tmp_path: Path) -> None:
    assert step_error(lambda: open_file(file(tmp_path, "w"))) == ("open", str(tmp_path), errno.EISDIR)


def test_links_are_followed_to_files_and_not_into_the_void(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "good").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    os.close(open_file(file(tmp_path / "good", "w")))
    assert (tmp_path / "file").read_bytes() == b""
    dangling = tmp_path / "dangling"
    assert step_error(lambda: open_file(file(dangling, "w"))) == ("open", str(dangling), errno.ENOENT)
    assert not (tmp_path / "nothing").exists()


WRITING = ("r+", "w", "w+", "a", "a+")


@pytest.fixture
def app(world: Path) -> Path:
    """A folder of the user nobody, next to `secret`, a file of root's."""
    world.chmod(0o755)
    folder = world / "app"
    folder.mkdir(mode=0o755)
    os.chown(folder, NOBODY, NOBODY)
    (world / "secret").write_bytes(b"secret")
    return folder


def link(path: Path, target: str | Path, owner: int) -> Path:
    path.symlink_to(target)
    os.lchown(path, owner, owner)
    return path


def refused(path: Path, access: str) -> str:
    before = open_numbers()
    with pytest.raises(StepError) as caught:
        open_file(file(path, access))
    assert open_numbers() == before
    assert (caught.value.step, caught.value.path) == ("open", str(path))
    return str(caught.value)


@needs_root
@pytest.mark.parametrize("access", WRITING)
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_link_in_a_folder_of_a_user_leads_nowhere(app: Path, access: str, owner: int) -> None:
    path = link(app / "log", "../secret", owner)
    assert refused(path, access) == (
        f"cannot open '{path}': the symbolic link '{path}' is not followed: a user can set it (ELOOP)"
    )
    assert (app.parent / "secret").read_bytes() == b"secret"


@needs_root
@pytest.mark.parametrize("access", WRITING)
def test_nor_does_one_on_the_way(app: Path, access: str) -> None:
    link(app / "logs", app.parent, NOBODY)
    assert f"the symbolic link '{app}/logs' is not followed" in refused(app / "logs" / "secret", access)
    assert f"the symbolic link '{app}/logs' is not followed" in refused(app / "logs" / "new", access)
    assert not (app.parent / "new").exists()
    good = app.parent / "good"
    link(good, app / "logs", 0)
    assert f"the symbolic link '{app}/logs' is not followed" in refused(good / "secret", access)
    assert (app.parent / "secret").read_bytes() == b"secret"


@needs_root
@pytest.mark.parametrize(("mode", "follows"), [(0o755, True), (0o1777, True), (0o775, False), (0o757, False)])
def test_links_of_root_where_nobody_exchanges_them(tmp_path: Path, mode: int, follows: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    (tmp_path / "file").touch()
    for path in (link(folder / "last", "../file", 0), link(folder / "way", "..", 0) / "file"):
        if follows:
            os.close(open_file(file(path, "a")))
        else:
            assert "(ELOOP)" in refused(path, "a")


@needs_root
def test_a_link_of_a_user_in_a_sticky_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o1777)
    (tmp_path / "file").touch()
    path = link(folder / "log", "../file", NOBODY)
    assert f"'{path}' belongs to uid {NOBODY}, who can have put it there" in refused(path, "w")


@needs_root
@pytest.mark.parametrize("access", ["r", "a"])
def test_a_fifo_behind_a_link_of_a_user(app: Path, access: str) -> None:
    os.mkfifo(app.parent / "fifo")
    assert "(ELOOP)" in refused(link(app / "in", "../fifo", NOBODY), access)


@needs_root
@pytest.mark.parametrize("access", WRITING)
def test_a_hard_link_to_a_file_of_somebody_else(app: Path, access: str) -> None:
    path = app / "log"
    path.hardlink_to(app.parent / "secret")
    assert refused(path, access) == (f"cannot open '{path}': '{path}' is a hard link that a user can have made (EPERM)")
    assert path.read_bytes() == b"secret"


@needs_root
def test_hard_links_that_do_no_harm(app: Path, tmp_path: Path) -> None:
    own = app / "own"
    own.touch()
    os.chown(own, NOBODY, NOBODY)
    (app / "second").hardlink_to(own)
    roots = tmp_path / "roots"
    roots.mkdir(mode=0o755)
    (roots / "log").hardlink_to(own)
    for path in (own, roots / "log"):
        os.close(open_file(file(path, "w")))


def test_an_ordinary_user_follows_every_link(app: Path) -> None:
    (app.parent / "open").touch()
    (app.parent / "open").chmod(0o666)
    path = link(app / "log", "../open", 12 if os.geteuid() == 0 else os.geteuid())

    def open_it() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        os.close(open_file(file(path, "w")))

    in_child(open_it)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "file"):
        assert step_error(lambda path=path: open_file(file(path, "w"))) == (  # type: ignore[misc]
            "open",
            str(path),
            errno.ELOOP,
        )


@pytest.mark.parametrize("access", ["w", "a", "r+"])
def test_odd_paths(tmp_path: Path, access: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "here").symlink_to(f"{tmp_path}/./sub//")
    os.close(open_file(file(f"/{tmp_path}//here/.././file", access)))
    for wrong, number in (("file/", errno.ENOTDIR), ("file/x", errno.ENOTDIR), ("sub/", errno.EISDIR)):
        path = f"{tmp_path}/{wrong}"
        assert step_error(lambda path=path: open_file(file(path, access))) == (  # type: ignore[misc]
            "open",
            path,
            number,
        )


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1"])
def test_our_own_descriptors(path: str) -> None:
    def write() -> bytes:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 1)
        os.write(open_file(file(path, "a")), b"x")
        return os.read(read_end, 10)

    assert in_child(write) == b"x"


@pytest.mark.parametrize("access", ["r", "r+", "w", "w+", "a", "a+"])
def test_a_fifo_waits_for_nobody(tmp_path: Path, access: str) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = open_file(file(path, access))
    try:
        assert flags(fd) & os.O_ACCMODE == os.O_RDWR
        assert os.get_blocking(fd)
        os.write(fd, b"x")
        assert os.read(fd, 10) == b"x"
    finally:
        os.close(fd)


def test_devices() -> None:
    for access in ("r", "w", "a", "r+"):
        os.close(open_file(file("/dev/null", access)))
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == 0o666


@pytest.mark.parametrize("access", ["r", "a"])
def test_the_first_place_that_is_not_local_ends_the_walk(tmp_path: Path, access: str) -> None:
    """Nothing is opened or created."""
    (tmp_path / "folder").mkdir()
    folder = (tmp_path / "folder").stat().st_ino
    with pytest.raises(ServedFileError, match="its file system has a server"):
        open_file(
            file(tmp_path / "folder/file", access), None, lambda fd, name: bool(name) or os.fstat(fd).st_ino != folder
        )
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_name_is_judged_before_it_is_looked_up(tmp_path: Path) -> None:
    """A lookup may already wait for an automounter."""
    with pytest.raises(ServedFileError):
        open_file(file(tmp_path / "missing/file", "a"), None, lambda _fd, name: name != "missing")


def test_a_file_that_is_a_mount_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ServedFileError):
        open_file(file(path, "a"), None, lambda fd, name: bool(name) or os.fstat(fd).st_ino != path.stat().st_ino)
