"""`fsys` and the paths of others: links, slashes, FIFOs, numbers and texts that are no good."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.workers.lua.calls import call, failed, forked, said, values

NOBODY = 65534
ENOTDIR, EINVAL, ELOOP, EPERM, EACCES = 20, 22, 40, 1, 13


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`real` is a folder with a file, `link` leads there, `fifo` is a FIFO that nobody else has open."""
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "file").write_bytes(b"kept")
    os.symlink("real", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def errno_of(expression: str) -> int:
    """The number of the error that an expression fails with; its message is about a path or an account."""
    none, message, number, more = values(expression).split("|")
    assert (none, more) == ("nil", "nil"), message
    assert message
    return int(number)


@pytest.mark.parametrize("slashes", ["/", "//", "/./", "/sub/.."])
def test_what_is_behind_a_link_is_not_removed(folder: Path, slashes: str) -> None:
    assert errno_of(f'fsys.remove("{folder}/link{slashes}", {{ recursive = true }})') in (ENOTDIR, EINVAL)
    assert (folder / "real" / "file").read_bytes() == b"kept"
    assert (folder / "link").is_symlink()


def test_a_link_itself_is_removed(folder: Path) -> None:
    assert call(f'return fsys.remove("{folder}/link", {{ recursive = true }})').ok
    assert not (folder / "link").is_symlink()
    assert (folder / "real" / "file").read_bytes() == b"kept"


@pytest.mark.parametrize("path", ["/", "//", ".", "..", "real/.", "real/sub/..", "./"])
def test_a_folder_without_a_name_is_not_removed(folder: Path, path: str) -> None:
    outcome = forked(f'fsys.chdir("{folder}") return select(3, fsys.remove("{path}", {{ recursive = true }}))')
    assert outcome.text == str(EINVAL)
    assert (folder / "real" / "file").exists()


def test_a_folder_is_removed_with_a_slash_behind_it(folder: Path) -> None:
    assert call(f'return fsys.remove("{folder}/real/", {{ recursive = true }})').ok
    assert not (folder / "real").exists()


@pytest.mark.parametrize(
    "expression",
    [
        'fsys.lstat("{}/link/")',
        'fsys.readlink("{}/link/")',
        'fsys.rmdir("{}/link/")',
        'fsys.remove("{}/link/")',
        'fsys.rename("{}/link/", "{}/new")',
        'fsys.rename("{}/real/file", "{}/new/")',
        'fsys.chown("{}/link/", 1, 1, {{ link = true }})',
    ],
)
def test_a_slash_does_not_have_a_link_followed(folder: Path, expression: str) -> None:
    assert errno_of(expression.format(folder, folder)) == ENOTDIR
    assert (folder / "real").stat().st_uid == os.geteuid()
    assert (folder / "link").is_symlink()


def test_a_tree_that_is_deeper_than_any_path(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    fd = os.open(tmp_path / "deep", os.O_PATH)
    for _ in range(2500):
        os.mkdir("x" * 100, dir_fd=fd)
        below = os.open("x" * 100, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert said(f'return tostring(fsys.remove("{tmp_path}/deep", {{ recursive = true }}))') == "true"
    assert not (tmp_path / "deep").exists()


def test_parents_as_many_as_a_path_can_name(tmp_path: Path) -> None:
    names = "a/" * ((4000 - len(str(tmp_path))) // 2)
    try:
        assert said(f'return tostring(fsys.mkdir("{tmp_path}/{names}", {{ parents = true }}))') == "true"
    finally:
        assert said(f'return tostring(fsys.remove("{tmp_path}/a", {{ recursive = true }}))') == "true"


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ('fsys.copy("{}/fifo", "{}/new")', EINVAL),
        ('fsys.read("{}/fifo")', EINVAL),
        ('fsys.write("{}/fifo", "text")', 6),
    ],
)
def test_a_fifo_is_waited_for_by_nobody(folder: Path, expression: str, number: int) -> None:
    assert errno_of(expression.format(folder, folder)) == number
    assert sorted(os.listdir(folder)) == ["fifo", "link", "real"]


@pytest.mark.parametrize("mode", ["r", "w", "a", "r+"])
def test_an_opened_fifo_has_both_ends(folder: Path, mode: str) -> None:
    script = f"""
    local fd = assert(fsys.open("{folder}/fifo", "{mode}"))
    local file = io.open("/proc/self/fd/" .. fd, "r+")
    file:write("line\\n") file:flush()
    return file:read("*l")
    """
    assert forked(script).text == "line"


@pytest.mark.parametrize("number", ["4294967295", '"4294967296"', '"99999999999999999999999"', '"no\\255body"', "-1"])
def test_ids_that_nobody_can_have(folder: Path, number: str) -> None:
    assert errno_of(f'fsys.chown("{folder}/real", {number})') in (2, EINVAL)
    assert errno_of(f'fsys.chown("{folder}/real", nil, {number})') in (2, EINVAL)


@pytest.mark.parametrize(
    "body",
    [
        'fsys.chown("/none", "a\\0b")',
        'fsys.chown("/none", nil, "a\\0b")',
        'fsys.mount("none", "/none", "tmpfs\\0")',
        'fsys.mount("none", "/none", "tmpfs", "ro\\0")',
        'fsys.stat("/none\\0")',
    ],
)
def test_nul_bytes(body: str) -> None:
    assert "without NUL" in failed(body)


def test_an_account_with_a_nul_byte_is_not_there() -> None:
    assert said('return tostring(unix.users["a\\0b"]) .. tostring(unix.groups["a\\0b"])') == "nilnil"


def test_paths_that_are_no_utf8(folder: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    assert call(f'return fsys.mkdir("{folder}/\\255\\254/sub", {{ parents = true }})').ok
    assert (folder / name / "sub").is_dir()
    assert said(f'return fsys.dir("{folder}")[4] == "\\255\\254"') == ""
    assert errno_of(f'fsys.read("{folder}/\\255\\254/none")') == 2
    assert call(f'return fsys.remove("{folder}/\\255\\254/", {{ recursive = true }})').ok
    assert not (folder / name).exists()


# what a user can set


@pytest.fixture
def app(folder: Path) -> Path:
    """A folder of the user nobody, with links to `real` and its file, and a hard link to it."""
    app = folder / "app"
    app.mkdir()
    os.symlink("../real", app / "link")
    os.symlink("../real/file", app / "last")
    os.link(folder / "real" / "file", app / "hard")
    os.chown(app, NOBODY, NOBODY)
    for name in ("link", "last"):
        os.lchown(app / name, NOBODY, NOBODY)
    return app


CALLS = [
    'fsys.stat("{}/link")',
    'fsys.lstat("{}/link/file")',
    'fsys.mkdir("{}/link/new")',
    'fsys.mkdir("{}/link/new/more", {{ parents = true }})',
    'fsys.rmdir("{}/link/sub")',
    'fsys.remove("{}/link/sub", {{ recursive = true }})',
    'fsys.rename("{}/link/file", "{}/own")',
    'fsys.rename("{}/hard", "{}/link/own")',
    'fsys.copy("{}/last", "{}/own")',
    'fsys.copy("/etc/hostname", "{}/link/own")',
    'fsys.symlink("x", "{}/link/own")',
    'fsys.readlink("{}/link/own")',
    'fsys.chmod("{}/last", "777")',
    'fsys.chown("{}/last", 1)',
    'fsys.chown("{}/link/file", 1, nil, {{ link = true }})',
    'fsys.dir("{}/link")',
    'fsys.mount("{}/link", "/mnt", "", "bind")',
    'fsys.mount("tmp", "{}/link", "tmpfs")',
    'fsys.umount("{}/link")',
    'fsys.access("{}/last")',
    'fsys.read("{}/last")',
    'fsys.write("{}/last", "new")',
    'fsys.chdir("{}/link")',
    'fsys.open("{}/last", "w")',
]


@needs_root
@pytest.mark.parametrize("expression", CALLS)
def test_root_follows_no_link_of_a_user(app: Path, expression: str) -> None:
    real = app.parent / "real"
    before = os.listdir(real), (real / "file").read_bytes(), os.stat(real / "file")[:8]
    assert errno_of(expression.format(app, app)) == ELOOP
    assert (os.listdir(real), (real / "file").read_bytes(), os.stat(real / "file")[:8]) == before


@needs_root
def test_the_message_says_how_a_link_is_followed(app: Path) -> None:
    assert values(f'fsys.read("{app}/last")') == (
        f"nil|{app}/last: the symbolic link '{app}/last' is not followed: a user can set it; "
        "{ follow = true } follows it|40|nil"
    )
    assert said(f'return fsys.read("{app}/last", {{ follow = true }})') == "kept"


@needs_root
def test_links_are_followed_where_the_script_says_so(app: Path) -> None:
    real = app.parent / "real"
    script = f"""
    local follow = {{ follow = true }}
    assert(fsys.stat("{app}/link", follow).type == "directory")
    assert(fsys.mkdir("{app}/link/new/more", {{ parents = true, follow = true }}))
    assert(fsys.write("{app}/last", "changed", follow))
    assert(fsys.chown("{app}/last", 1, 2, follow))
    assert(fsys.chmod("{app}/last", "640", follow))
    assert(fsys.copy("{app}/last", "{app}/link/copy", follow))
    assert(fsys.rename("{app}/link/copy", "{app}/link/renamed", follow))
    assert(#fsys.dir("{app}/link", follow) == 4)
    assert(fsys.remove("{app}/link/new", {{ recursive = true, follow = true }}))
    assert(fsys.access("{app}/last", "rw", follow))
    """
    assert call(script).ok, call(script)
    status = os.stat(real / "file")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1, 2, 0o640)
    assert (real / "renamed").read_bytes() == b"changed"


@needs_root
@pytest.mark.parametrize(
    "expression",
    ['fsys.chmod("{}/hard", "777")', 'fsys.chown("{}/hard", 1)', 'fsys.write("{}/hard", "")', 'fsys.read("{}/hard")'],
)
def test_hard_links_that_a_user_can_have_made(app: Path, expression: str) -> None:
    assert errno_of(expression.format(app)) == EPERM
    assert (app / "hard").read_bytes() == b"kept"
    assert said(f'return tostring(fsys.chmod("{app}/hard", "600", {{ follow = true }}))') == "true"


@needs_root
def test_a_function_of_an_ordinary_user_follows_links(app: Path) -> None:
    for path in (app, *app.parents):
        if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    outcome = forked(f'assert(proc.setgid({NOBODY})) assert(proc.setuid({NOBODY})) return fsys.read("{app}/last")')
    assert outcome.text == "kept", outcome


@needs_root
def test_a_program_is_run_in_no_folder_behind_a_link_of_a_user(app: Path) -> None:
    assert errno_of(f'proc.run({{ "/bin/pwd", cwd = "{app}/link" }})') == ELOOP
    found = said(f'return proc.run({{ "/bin/pwd", cwd = "{app}/link", follow = true }})')
    assert found.strip() == f"{app.parent}/real"
    assert said(f'return proc.run({{ "/bin/pwd", cwd = "{app}" }})').strip() == str(app)


# what anybody can have put into a folder such as /tmp


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody may write to, with a file and a folder of a user's."""
    tmp_path.chmod(0o1777)
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "own").write_bytes(b"root's")
    for name in ("file", "folder"):
        os.chown(tmp_path / name, NOBODY, NOBODY)
    return tmp_path


USES = [
    'fsys.read("{}/file")',
    'fsys.read("{}/folder/own")',
    'fsys.write("{}/file", "new")',
    'fsys.write("{}/folder/new", "new")',
    'fsys.open("{}/file", "a")',
    'fsys.chmod("{}/file", "4755")',
    'fsys.chown("{}/file", 0)',
    'fsys.chown("{}/file", 0, nil, {{ link = true }})',
    'fsys.mkdir("{}/folder", {{ parents = true }})',
    'fsys.mkdir("{}/folder/more/new", {{ parents = true }})',
    'fsys.copy("{}/file", "/nowhere")',
    'fsys.copy("/etc/hostname", "{}/folder/new")',
    'fsys.rename("{}/folder/own", "{}/own")',
    'fsys.symlink("x", "{}/folder/new")',
    'fsys.mount("{}/folder", "/mnt", "", "bind")',
    'fsys.chdir("{}/folder")',
    'proc.run({{ "/bin/pwd", cwd = "{}/folder" }})',
]


@needs_root
@pytest.mark.parametrize("expression", USES)
def test_nothing_of_others_is_used_in_a_shared_folder(shared: Path, expression: str) -> None:
    before = os.stat(shared / "file")[:8], os.listdir(shared / "folder")
    assert errno_of(expression.format(shared, shared)) == EACCES
    assert (os.stat(shared / "file")[:8], os.listdir(shared / "folder")) == before


@needs_root
def test_the_message_says_whose_it_is_and_how_it_is_used(shared: Path) -> None:
    assert values(f'fsys.read("{shared}/file")') == (
        f"nil|{shared}/file: '{shared}/file' belongs to uid {NOBODY}, who can have put it there: remove it, or choose "
        "a directory that other users cannot write to; { follow = true } takes it|13|nil"
    )
    assert said(f'return fsys.read("{shared}/file", {{ follow = true }})') == "kept"


@needs_root
def test_it_is_looked_at_and_removed(shared: Path) -> None:
    script = f"""
    assert(fsys.stat("{shared}/file").uid == {NOBODY})
    assert(fsys.lstat("{shared}/folder/own"))
    assert(fsys.access("{shared}/folder/own", "r"))
    assert(#fsys.dir("{shared}/folder") == 1)
    assert(fsys.remove("{shared}/folder/own"))
    assert(fsys.rmdir("{shared}/folder"))
    """
    assert call(script).ok, call(script)
