"""Programs of an installation that cannot be loaded say in one line what is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import spawn_supervisor
import supervisor
from supervisor import errors, why_not_loaded
from supervisor.linux.namespaces import MNT_DETACH, MS_NOEXEC, mount, umount2
from tests.unit.process.requirements import needs_root
from workers.accessory.enter import command

HELP = ("--help",)
RUN = ("--config", "{at}/none.lua", "--runtime-dir", "{at}/../run")
CHECK = ("--check", "--config", "{at}/a.lua")
# programs with arguments, and what they load of ours then
CASES = [
    ("spawnd", HELP, "supervisor/linux/libglance.so"),
    ("spawnd", HELP, "supervisor/notify/libelsewhere.so"),
    ("spawnd", RUN, "supervisor/linux/libpipecall.so"),
    ("spawnd", RUN, "supervisor/launch/libstart.so"),
]
# programs with arguments, and what they load of others then
OTHERS = [
    ("spawnd", RUN, "prctl", 1),
    ("spawnd", RUN, "setproctitle", 1),
    ("spawnd", CHECK, "lupa", 78),
    ("spawn_enter", HELP, "prctl", 125),
]


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "spawn_supervisor"


def install(at: Path) -> None:
    shutil.copytree(spawn_supervisor.HERE, at)


def run(program: str, at: Path, arguments: tuple[str, ...], *options: str) -> tuple[int, str]:
    """Return status and last line of a program."""
    path = f"sys.path.insert(0, {str(at.parent)!r})"
    code = f"import sys; {path}; from spawn_supervisor import {program}; sys.exit({program}())"
    command = [sys.executable, "-IBXutf8", *options, "-c", code, *(argument.format(at=at) for argument in arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout.rstrip("\n").rpartition("\n")[2]


@pytest.mark.parametrize(("program", "arguments", "library"), CASES)
def test_a_library_that_is_missing_or_another_machine_s(
    at: Path, program: str, arguments: tuple[str, ...], library: str
) -> None:
    install(at)
    path = at / library
    content = path.read_bytes()
    path.unlink()
    status, text = run(program, at, arguments)
    assert status == 1
    assert text.endswith(f"cannot load '{path}': it does not exist; install spawn-supervisor again")
    machine = f"; install spawn-supervisor again, on this kind of machine ({os.uname().machine})"
    for data, cause in ((content[:4] + b"\x01" + content[5:], "wrong ELF class: ELFCLASS32"), (b"", "file too short")):
        path.write_bytes(data)
        status, text = run(program, at, arguments)
        assert status == 1
        assert text.endswith(f"cannot load '{path}': {cause}{machine}")


@needs_root
@pytest.mark.parametrize("library", ["supervisor/linux/libglance.so", "supervisor/launch/libstart.so"])
def test_a_file_system_where_nothing_is_executed(at: Path, library: str) -> None:
    install(at)
    path = at / library
    outside = at / "outside"
    outside.mkdir()
    mount("test", str(outside), "tmpfs", MS_NOEXEC)
    try:
        path.rename(path.with_suffix(".old"))
        shutil.copy(path.with_suffix(".old"), outside / path.name)
        path.symlink_to(outside / path.name)
        status, text = run("spawnd", at, RUN)
    finally:
        umount2(str(outside), MNT_DETACH)
    assert status == 1
    cause = "its file system is mounted with noexec; install spawn-supervisor elsewhere, or mount that one without it"
    assert text.endswith(f"cannot load '{path}': {cause}")


@pytest.mark.parametrize(("program", "arguments", "module", "expected"), OTHERS)
def test_a_module_of_others(
    at: Path, program: str, arguments: tuple[str, ...], module: str, expected: int
) -> None:
    install(at)
    (at / "a.lua").write_text('a = { exec = "/bin/true" }')
    python = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
    status, text = run(program, at, arguments, "-S")
    assert status == expected
    assert text.endswith(f"it is not installed for {python}; install spawn-supervisor again")
    path = at / f"{module}{EXTENSION_SUFFIXES[0]}"
    path.write_bytes(b"")
    status, text = run(program, at, arguments)
    assert status == expected
    assert f"cannot load '{path}': file too short; install spawn-supervisor again" in text


def test_other_errors_are_none_of_the_installation() -> None:
    assert why_not_loaded(FileNotFoundError(2, "No such file or directory", "/nowhere")) == ""
    short = OSError(errno.EMFILE, "Too many open files", "/usr/x.py")
    assert why_not_loaded(short) == "cannot load '/usr/x.py': Too many open files"
    assert why_not_loaded(ImportError("cannot import name 'x' from 'y'")) == ""


def test_numbers_are_the_same() -> None:
    assert supervisor.EXIT_FAILED == errors.EXIT_FAILED
    assert supervisor.CANNOT_ENTER == command.CANNOT_ENTER
