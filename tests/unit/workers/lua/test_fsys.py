"""`fsys`: every function, with what it returns and how it fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.workers.lua.calls import call, failed, forked, said, values
from workers.lua import fsys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"some\0text")
    (tmp_path / "file").chmod(0o640)
    return tmp_path


def missing(path: str) -> str:
    return f"nil|{path}: No such file or directory|2|nil"


def test_stat(folder: Path) -> None:
    names = "type mode size uid gid mtime atime ctime ino dev rdev nlink".split()
    fields = said(f'local s = fsys.stat("{folder}/file") return {{ {", ".join(f"{n} = s.{n}" for n in names)} }}')
    found = dict(field.split("=") for field in fields.split(", "))
    status = os.stat(folder / "file")
    assert (found["type"], found["mode"], found["size"]) == ("file", "0640", "9")
    assert (found["uid"], found["gid"], found["nlink"]) == (str(status.st_uid), str(status.st_gid), "1")
    assert float(found["mtime"]) == pytest.approx(status.st_mtime, abs=1)
    assert float(found["ino"]) == status.st_ino
    assert values(f'fsys.stat("{folder}/none")') == missing(f"{folder}/none")


def test_kinds(folder: Path) -> None:
    os.symlink("file", folder / "link")
    os.mkfifo(folder / "fifo")
    assert said(f'return fsys.lstat("{folder}/link").type') == "link"
    assert said(f'return fsys.stat("{folder}/link").type') == "file"
    assert said(f'return fsys.stat("{folder}/fifo").type') == "fifo"
    assert said(f'return fsys.stat("{folder}").type') == "directory"
    assert said('return fsys.stat("/dev/null").type') == "character device"


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [('"755"', 0o755), ('"1777"', 0o1777), ('"rwx------"', 0o700), ('{ mode = "711" }', 0o711)],
)
def test_mkdir(folder: Path, arguments: str, mode: int) -> None:
    assert values(f'fsys.mkdir("{folder}/new", {arguments})') == "true|nil|nil|nil"
    assert os.stat(folder / "new").st_mode & 0o7777 == mode
    assert values(f'fsys.mkdir("{folder}/new")') == f"nil|{folder}/new: File exists|17|nil"


def test_mkdir_with_parents(folder: Path) -> None:
    assert values(f'fsys.mkdir("{folder}/a/b")') == missing(f"{folder}/a/b")
    for _ in range(2):
        assert call(f'return fsys.mkdir("{folder}/a/b", {{ parents = true }})').ok
    assert (folder / "a" / "b").is_dir()
    assert values(f'fsys.mkdir("{folder}/file", {{ parents = true }})') == f"nil|{folder}/file: File exists|17|nil"


def test_rmdir_and_remove(folder: Path) -> None:
    (folder / "a").mkdir()
    assert values(f'fsys.rmdir("{folder}/a")') == "true|nil|nil|nil"
    assert values(f'fsys.rmdir("{folder}/a")') == missing(f"{folder}/a")
    assert values(f'fsys.remove("{folder}/file")') == "true|nil|nil|nil"
    assert values(f'fsys.remove("{folder}/file")') == missing(f"{folder}/file")
    (folder / "a" / "b").mkdir(parents=True)
    os.symlink("/etc/hostname", folder / "a" / "link")
    assert not call(f'return fsys.remove("{folder}/a")').ok
    assert values(f'fsys.remove("{folder}/a", {{ recursive = true }})') == "true|nil|nil|nil"
    assert not (folder / "a").exists()
    assert Path("/etc/hostname").exists()


def test_rename_and_copy(folder: Path) -> None:
    assert values(f'fsys.rename("{folder}/file", "{folder}/other")') == "true|nil|nil|nil"
    assert values(f'fsys.copy("{folder}/other", "{folder}/third")') == "true|nil|nil|nil"
    assert (folder / "third").read_bytes() == b"some\0text"
    assert os.stat(folder / "third").st_mode & 0o777 == 0o640
    assert sorted(os.listdir(folder)) == ["other", "third"]
    assert values(f'fsys.copy("{folder}/none", "{folder}/x")') == missing(f"{folder}/none")
    assert values(f'fsys.copy("/dev/null", "{folder}/x")') == "nil|/dev/null: not a regular file|22|nil"
    assert values(f'fsys.rename("{folder}/none", "{folder}/x")') == missing(f"{folder}/none")


def test_a_copy_replaces_a_file(folder: Path) -> None:
    (folder / "other").write_text("longer than the other text")
    assert values(f'fsys.copy("{folder}/file", "{folder}/other")') == "true|nil|nil|nil"
    assert (folder / "other").read_bytes() == b"some\0text"
    assert sorted(os.listdir(folder)) == ["file", "other"]


def test_a_copy_that_is_killed_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    pid = os.fork()
    if pid == 0:
        fsys._copy(os.fsencode(folder / "file"), os.fsencode(folder / "other"), True)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert os.listdir(folder) == ["file"]


def test_links(folder: Path) -> None:
    assert values(f'fsys.symlink("file", "{folder}/link")') == "true|nil|nil|nil"
    assert said(f'return fsys.readlink("{folder}/link")') == "file"
    assert values(f'fsys.readlink("{folder}/file")') == f"nil|{folder}/file: Invalid argument|22|nil"


def test_chmod_and_chown(folder: Path) -> None:
    assert values(f'fsys.chmod("{folder}/file", "rw-rw-r--")') == "true|nil|nil|nil"
    assert os.stat(folder / "file").st_mode & 0o777 == 0o664
    uid, gid = os.geteuid(), os.getegid()
    assert values(f'fsys.chown("{folder}/file", {uid}, "{gid}")') == "true|nil|nil|nil"
    if uid == 0:
        assert call(f'return fsys.chown("{folder}/file", "daemon", "daemon")').ok
        assert (os.stat(folder / "file").st_uid, os.stat(folder / "file").st_gid) == (1, 1)
        assert call(f'return fsys.chown("{folder}/file", nil, 0)').ok
        assert (os.stat(folder / "file").st_uid, os.stat(folder / "file").st_gid) == (1, 0)
        os.symlink("file", folder / "link")
        assert call(f'return fsys.chown("{folder}/link", 2, nil, {{ link = true }})').ok
        assert (os.lstat(folder / "link").st_uid, os.stat(folder / "file").st_uid) == (2, 1)
    assert values(f'fsys.chown("{folder}/file", "nobody-there")') == "nil|no such user: 'nobody-there'|2|nil"


def test_dir(folder: Path) -> None:
    (folder / "a b").touch()
    assert said(f'return table.concat(fsys.dir("{folder}"), "|")') == "a b|file"
    (folder / "empty").mkdir()
    assert said(f'return #fsys.dir("{folder}/empty")') == "0"
    assert values(f'fsys.dir("{folder}/none")') == missing(f"{folder}/none")


def test_access(folder: Path) -> None:
    assert values(f'fsys.access("{folder}/file")') == "true|nil|nil|nil"
    assert values(f'fsys.access("{folder}/file", "rw")') == "true|nil|nil|nil"
    assert values(f'fsys.access("{folder}/file", "x")') == f"nil|{folder}/file: Permission denied|13|nil"
    assert values(f'fsys.access("{folder}/none")') == missing(f"{folder}/none")


def test_read_and_write(folder: Path) -> None:
    assert said(f'return fsys.read("{folder}/file") == "some\\0text"') == ""
    assert values(f'fsys.write("{folder}/new", "one\\0", {{ mode = "600" }})') == "true|nil|nil|nil"
    assert call(f'return fsys.write("{folder}/new", "two", {{ append = true }})').ok
    assert (folder / "new").read_bytes() == b"one\0two"
    assert os.stat(folder / "new").st_mode & 0o777 == 0o600
    assert call(f'return fsys.write("{folder}/new", 3)').ok
    assert (folder / "new").read_bytes() == b"3"
    assert values(f'fsys.read("{folder}/none")') == missing(f"{folder}/none")
    assert values(f'fsys.write("{folder}/none/x", "")') == missing(f"{folder}/none/x")
    assert values('fsys.write("/dev/full", "x")') == "nil|/dev/full: No space left on device|28|nil"


def test_umask_and_chdir(folder: Path) -> None:
    outcome = forked('fsys.umask("027") return fsys.umask("---rwxrwx") .. fsys.umask() .. fsys.umask()')
    assert outcome.text == "002700770077"
    assert forked(f'fsys.chdir("{folder}") return fsys.read("file") == "some\\0text"').ok
    assert values(f'fsys.chdir("{folder}/none")') == missing(f"{folder}/none")


def test_descriptors(folder: Path) -> None:
    body = f"""
    local fd = fsys.open("{folder}/new", "w")
    local copy = fsys.dup(fd)
    assert(copy > fd and fsys.dup(fd, 9) == 9)
    assert(proc.run({{ "sh", "-c", "true" }}))
    assert(fsys.close(fd) and fsys.close(copy))
    local file = io.open("/proc/self/fd/9", "w")
    file:write("x")
    file:close()
    assert(fsys.close(9, 9))
    local again, message, number = fsys.close(9)
    return message .. number .. tostring(fsys.open("{folder}/none"))
    """
    outcome = forked(body)
    assert outcome.text == "Bad file descriptor9nil", outcome
    assert (folder / "new").read_text() == "x"
    assert values("fsys.dup(999999)") == "nil|Bad file descriptor|9|nil"


def test_mounts(folder: Path) -> None:
    (folder / "at").mkdir()
    assert values(f'fsys.mount("/none", "{folder}/none", "tmpfs")').startswith("nil|")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    from supervisor.linux.namespaces import CLONE_NEWNS, unshare

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            unshare(CLONE_NEWNS)
            said('assert(fsys.mount("none", "/", nil, "rprivate"))')
            said(f'assert(fsys.mount("tmp", "{folder}/at", "tmpfs", "nosuid,noexec,size=1m,mode=700"))')
            line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{folder}/at" in line)
            assert "nosuid" in line
            assert "noexec" in line
            assert "size=1024k" in line
            said(f'assert(fsys.mount("{folder}", "{folder}/at", nil, "bind"))')
            assert (folder / "at" / "file").exists()
            said(f'assert(fsys.umount("{folder}/at"))')
            _check_binds(folder)
            said(f'assert(fsys.umount("{folder}/at", {{ lazy = true }}))')
            assert values(f'fsys.umount("{folder}/at")') == f"nil|{folder}/at: Invalid argument|22|nil"
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _check_binds(folder: Path) -> None:
    """Of a bind the kernel itself ignores whatever else is asked for."""
    (folder / "to").mkdir()
    said(f'assert(fsys.mount("{folder}/at", "{folder}/to", nil, "bind,ro,slave"))')
    assert values(f'fsys.write("{folder}/to/x", "")') == f"nil|{folder}/to/x: Read-only file system|30|nil"
    assert call(f'return fsys.write("{folder}/at/x", "")').ok, "the original is as it was"
    status = Path("/proc/self/mountinfo").read_text()
    assert " ro,nosuid,noexec" in next(line for line in status.splitlines() if f" {folder}/to " in line)
    said(f'assert(fsys.umount("{folder}/to"))')
    said(f'assert(fsys.mount("tmp", "{folder}/to", "tmpfs", "size=1m,shared"))')
    assert " shared:" in next(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/to " in line
    )
    said(f'assert(fsys.umount("{folder}/to"))')


def test_a_copy_gives_nobody_the_rights_of_whoever_copies(folder: Path) -> None:
    (folder / "file").chmod(0o4755)
    assert call(f'return fsys.copy("{folder}/file", "{folder}/copy")').ok
    assert os.stat(folder / "copy").st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("fsys.stat()", "bad argument #1 to 'stat' (string expected, got nil)"),
        ("fsys.stat({})", "bad argument #1 to 'stat' (string expected, got table)"),
        ('fsys.stat("a\\0b")', "bad argument #1 to 'stat' (a path expected, without NUL and not empty)"),
        ('fsys.stat("")', "bad argument #1 to 'stat' (a path expected, without NUL and not empty)"),
        ('fsys.stat("a", "b")', "bad argument #2 to 'stat' (table expected, got string)"),
        ('fsys.rename("a")', "bad argument #2 to 'rename' (string expected, got nil)"),
        ('fsys.mkdir("a", 755)', "bad argument #2 to 'mkdir' (permissions expected, as text like \"rw-r--r--\""),
        ('fsys.mkdir("a", { parent = true })', "bad argument #2 to 'mkdir' (there is no option 'parent')"),
        ('fsys.chmod("a", "rwxrwxrwz")', "bad argument #2 to 'chmod' (permissions expected"),
        ('fsys.access("a", "q")', "bad argument #2 to 'access' ('r', 'w' and 'x' expected)"),
        ("fsys.dup(-1)", "bad argument #1 to 'dup' (an integer from 0 to 2147483647 expected, got -1)"),
        ('fsys.open("a", "q")', "bad argument #2 to 'open' ('r' or 'r+' or 'w'"),
        ('fsys.write("a")', "bad argument #2 to 'write' (string expected, got nil)"),
        ('fsys.umount("a", "lazy")', "bad argument #2 to 'umount' (table expected, got string)"),
        ("fsys.new = 1", "fsys is a library, it cannot be changed"),
    ],
)
def test_wrong_calls(body: str, message: str) -> None:
    assert failed(body).startswith(message)
