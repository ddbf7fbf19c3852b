"""Notices of what is hardly meant so: programs that would not start, files without services, a strange umask."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

import spawn_supervisor
from supervisor.launch import PATH as LAUNCH
from supervisor.linux.namespaces import CLONE_NEWNS, MS_BIND, MS_NOEXEC, MS_REC, MS_REMOUNT, MS_SLAVE, mount, unshare
from tests.unit.definitions.loading import Files, records
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root

MODULE = 'module("a", package.seeall) function start() end {user}'
LOCAL = "a.lua:2: 'web' is local, and no service: a service is a global, without 'local'"


def notices(path: Path) -> list[str]:
    """The notices of a check, without the folder."""
    folder = path if path.is_dir() else path.parent
    found = records(path, programs=True, root=os.geteuid() == 0)
    assert not [record for record in found if "problem" in record]
    return [record["notice"].removeprefix(f"{folder}/") for record in found if "notice" in record]


def program(files: Files, text: str, mode: int = 0o755) -> str:
    path = files.folder / "prog"
    path.write_bytes(text.encode())
    path.chmod(mode)
    files.folder.chmod(0o755)
    return str(path)


def of_program(files: Files, path: str, keys: str = "") -> list[str]:
    found = notices(files.write(f"web = {{ exec = {path!r}, {keys} }}"))
    return [text for text in found if "cannot execute" not in text]  # the folder of a test may be closed to nobody


@pytest.mark.parametrize(
    ("path", "notice"),
    [
        ("/bin/sleep 5", "'/bin/sleep 5' does not exist, '/bin/sleep' does: arguments go into arg, a list, here '5'"),
        ("/nowhere/x y", "'/nowhere/x y' does not exist; arguments go into arg, a list"),
        ("/nowhere/x", "'/nowhere/x' does not exist"),
        ("/etc/passwd/x", "'/etc/passwd/x' does not exist"),
        ("/usr", "'/usr' is a directory, not a program"),
        ("/etc/passwd", "'/etc/passwd' is not executable: chmod a+x"),
    ],
)
def test_a_program_that_cannot_be_executed(files: Files, path: str, notice: str) -> None:
    assert of_program(files, path) == [f"a.lua:1: web: exec: {notice}"]


def test_a_pipe_is_not_opened(files: Files) -> None:
    path = files.folder / "pipe"
    os.mkfifo(path)
    path.chmod(0o755)
    assert of_program(files, str(path)) == [f"a.lua:1: web: exec: {str(path)!r} is not a regular file"]


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("#!/bin/nosh\n", "has the interpreter '/bin/nosh', which does not exist"),
        ("#! /bin/nosh -e\n", "has the interpreter '/bin/nosh', which does not exist"),
        ("#!/bin/sh\r\n:\r\n", "has lines that end as in DOS, so its interpreter is '/bin/sh\\r': remove the carriage"),
        ("#!/usr/bin/env no-such-program\n", "has the interpreter 'no-such-program', which is not in PATH"),
        ("echo hello\n", "is text without an interpreter: its first line has to be like '#!/bin/sh'"),
    ],
)
def test_a_script_without_its_interpreter(files: Files, text: str, notice: str) -> None:
    (found,) = of_program(files, program(files, text))
    assert notice in found


@pytest.mark.parametrize("text", ["#!/bin/sh\n", "#! /bin/sh -e\n", "#!/usr/bin/env sh\n", "#!/usr/bin/env -S sh -e\n"])
def test_a_script_that_can_be_executed(files: Files, text: str) -> None:
    assert of_program(files, program(files, text)) == []


@needs_root
@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("#!/bin/sh\n", "'{at}/prog' is on a file system that is mounted with noexec"),
        ("#!{at}/prog\n", "'{folder}/prog' has the interpreter '{at}/prog', which is on a file system that is mounted"),
    ],
    ids=["program", "interpreter"],
)
def test_a_file_system_that_forbids_execution(files: Files, text: str, notice: str) -> None:
    at = files.folder / "at"
    at.mkdir()
    path = program(files, text.replace("{at}", str(at)))

    def check() -> list[str]:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_SLAVE | MS_REC)
        mount("test", str(at), "tmpfs", MS_NOEXEC)
        (at / "prog").write_text("#!/bin/sh\n")
        (at / "prog").chmod(0o755)
        return of_program(files, path if "{at}" in text else str(at / "prog"))

    (found,) = in_child(check)
    assert notice.replace("{at}", str(at)).replace("{folder}", str(files.folder)) in found


@needs_root
def test_a_supervisor_that_cannot_start_programs(files: Files) -> None:
    path = files.write("web = { exec = '/bin/true' }")

    def check() -> list[str]:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_SLAVE | MS_REC)
        mount(LAUNCH, LAUNCH, flags=MS_BIND)
        mount("none", LAUNCH, flags=MS_REMOUNT | MS_BIND | MS_NOEXEC)
        return notices(path)

    expected = f"{LAUNCH}: it is on a file system that is mounted with noexec, so no service can be started"
    assert in_child(check) == [expected]
    assert notices(path) == []


def test_path_of_the_service_counts(files: Files) -> None:
    path = program(files, "#!/usr/bin/env prog\n")
    assert "now '/bin:/usr/bin'" in of_program(files, path)[0]
    assert of_program(files, path, f"env = {{ PATH = '/nowhere:{files.folder}' }}") == []


def test_a_check_is_a_program_too(files: Files) -> None:
    (found,) = notices(files.write('web = { exec = "/bin/true", check = { "/nowhere/check", "-t" } }'))
    assert found == "a.lua:1: web: check: '/nowhere/check' does not exist"


@pytest.mark.parametrize("more", ["", 'chroot = "/srv",'])
def test_banners_are_files_of_the_host(files: Files, more: str) -> None:
    files.write("Sorry\n", "sorry")
    rules = f'banner = "/nowhere/hello", banner_refused = "{files.folder}/sorry"'
    listener = 'fd = { tcp("127.0.0.1", 7) }'
    (found,) = notices(files.write(f'web = {{ exec = "/bin/true", {more} {listener}, accept = {{ {rules} }} }}'))
    assert found == "a.lua:1: web: accept.banner: '/nowhere/hello' does not exist"


def test_programs_of_another_root_are_not_looked_for(files: Files) -> None:
    assert notices(files.write('web = { exec = "/nowhere/x", chroot = "/srv" }')) == []


def test_another_root_has_to_exist(files: Files) -> None:
    (found,) = notices(files.write('web = { exec = "/nowhere/x", chroot = "/nowhere" }'))
    assert found == "a.lua:1: web: chroot: '/nowhere' does not exist"
    made = 'module("web", package.seeall)\nexec = "/x"\nchroot = "/nowhere"\nfunction start() return true end'
    assert notices(files.write(made)) == []


def test_a_start_looks_for_no_program(files: Files) -> None:
    """It may be on a file system that hangs, or be made by a step before."""
    assert files.load('web = { exec = "/nowhere/x" }').notices == ()


def test_a_folder_without_services(files: Files) -> None:
    assert notices(files.folder) == [f"{files.folder}:1: defines no services: they are in files named *.lua"]
    files.write("-- nothing yet", "a.lua")
    assert notices(files.folder) == [f"{files.folder}:1: defines no services: they are in files named *.lua"]
    files.write('web = { exec = "/bin/true" }', "b.lua")
    assert notices(files.folder) == []


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ('\nlocal web = { exec = "/bin/true" }', [LOCAL]),
        ('local t = { "/bin/true" }\nweb = { exec = t[1] }', []),
        ('local t = { "a", "b" }\nfor _, n in ipairs(t) do\n  _G[n] = { exec = "/bin/true" }\nend', []),
        ("local t = {}\n_DEFAULT = { nice = 1 }", []),
        ("-- local t = {}", []),
        ("", []),
    ],
)
def test_a_file_with_locals_only(files: Files, text: str, notice: list[str]) -> None:
    assert notices(files.write(text)) == notice


@pytest.mark.parametrize(
    ("umask", "meant"), [("755", "022"), ("rwxr-xr-x", "022"), ("644", "133"), ("0600", "177"), ("700", "077")]
)
def test_a_umask_that_looks_like_permissions(files: Files, umask: str, meant: str) -> None:
    (found,) = files.load(f'web = {{ exec = "/bin/true", umask = "{umask}" }}').notices
    assert "web: umask: masks what the owner of a new file may do with it" in found
    assert found.endswith(f"it is '{meant}'")


@pytest.mark.parametrize("umask", ["022", "077", "027", "002", "177", "000", "---rwxrwx"])
def test_a_umask_that_is_one(files: Files, umask: str) -> None:
    assert files.load(f'web = {{ exec = "/bin/true", umask = "{umask}" }}').notices == ()


@pytest.mark.parametrize(
    ("keys", "notice"),
    [
        ('cwd = "/nowhere"', "cwd: '/nowhere' does not exist"),
        ('env_file = "/nowhere.env"', "env_file: '/nowhere.env' does not exist"),
        ('env = { PATH = "$PATH:/opt/bin" }', "env.PATH: is passed as written: neither variables"),
        ('arg = { "$HOME/x" }', "arg[1]: is passed as written: expand_env = true expands variables"),
        ('arg = { "~/x" }, expand_env = true', "arg[1]: is passed as written: ~ is not expanded"),
        ('cwd = "/tmp", env_file = "-/nowhere.env"', ""),
        ('arg = { "$HOME/x" }, expand_env = true', ""),
        ('arg = { "-c", "echo $HOME" }', ""),
        ('env = { PRICE = "5 $", TOKEN = "a$b" }', ""),
    ],
)
def test_what_a_start_needs(files: Files, keys: str, notice: str) -> None:
    found = of_program(files, "/bin/true", keys)
    assert len(found) == bool(notice)
    assert all(text.startswith(f"a.lua:1: web: {notice}") for text in found)


@needs_root
@pytest.mark.parametrize("text", ["a = {{ worker = 'reaper'; {user} }}", MODULE])
def test_an_environment_that_users_cannot_reach(files: Files, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        open_to_all, closed = Path(name), Path(name) / "closed"
        open_to_all.chmod(0o755)
        (closed / "spawn_supervisor").mkdir(parents=True)
        closed.chmod(0o700)
        monkeypatch.setattr(spawn_supervisor, "HERE", str(closed / "spawn_supervisor"))
        found = notices(files.write(text.format(user='user = "nobody"')))
        assert f"user 'nobody' cannot enter '{closed}', so spawn-supervisor has to be installed elsewhere" in found[0]
        assert len(found) == 1
        assert notices(files.write(text.format(user='user = "root"; group = "root"'))) == []
