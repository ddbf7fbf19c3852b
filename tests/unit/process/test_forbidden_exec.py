"""The cause of a forbidden exec is named: a directory, the file, or its interpreter."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisor.linux.namespaces import MS_BIND, MS_NOEXEC, MS_REMOUNT
from tests.unit.launch.test_namespaces import OWN_MOUNTS, mount
from tests.unit.process.launched import service, start
from tests.unit.process.requirements import needs_root


def script(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def folder(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def cause(path: Path | str) -> str:
    outcome = start(service(), (str(path),))
    assert outcome.failed_step == ("exec", str(path), errno.EACCES)
    assert outcome.failure is not None
    return outcome.failure.cause.removeprefix("Permission denied: ")


@needs_root
def test_a_directory_that_the_user_may_not_search(world: Path) -> None:
    closed = folder(world / "closed", 0o700)
    below = folder(closed / "below", 0o755)
    script(below / "program")
    assert cause(below / "program") == f"its user may not search '{closed}'"
    (world / "link").symlink_to("closed/below")
    assert cause(world / "link" / "program") == f"its user may not search '{closed}'"
    (world / "program").symlink_to(below / "program")
    assert cause(world / "program") == f"its user may not search '{closed}'"


def test_a_file_that_the_user_may_not_execute(world: Path) -> None:
    path = script(world / "program", mode=0o644)
    assert cause(path) == "its user may not execute it"
    (world / "link").symlink_to("program")
    assert cause(world / "link") == f"its user may not execute the program '{path}'"


def test_a_directory_in_place_of_a_program(world: Path) -> None:
    assert cause(folder(world / "program", 0o755)) == "it is no regular file"


@needs_root
def test_a_file_of_another_user_in_a_directory_of_all(world: Path) -> None:
    """Others may not put a file there for root to open; to execute it is another matter."""
    world.chmod(0o1777)
    path = script(folder(world / "theirs", 0o755) / "program", mode=0o644)
    os.chown(path.parent, 1234, 1234)
    os.chown(path, 4321, 4321)
    assert cause(path) == "its user may not execute it"


@needs_root
@pytest.mark.parametrize("line", ["#!{at}\n", "#! \t{at} -x\n", "#!{at}"])
def test_the_interpreter_of_a_script(world: Path, line: str) -> None:
    closed = folder(world / "closed", 0o700)
    inside = script(closed / "interpreter")
    path = script(world / "program", line.format(at=inside))
    assert cause(path) == f"its user may not search '{closed}', which leads to its interpreter"
    closed.chmod(0o755)
    inside.chmod(0o644)
    assert cause(path) == f"its user may not execute its interpreter '{inside}'"
    script(path, line.format(at=closed))
    assert cause(path) == f"its interpreter '{closed}' is no regular file"


def test_an_interpreter_of_an_interpreter(world: Path) -> None:
    last = script(world / "last", mode=0o644)
    script(world / "second", f"#!{last}\n")
    assert cause(script(world / "first", f"#!{world}/second\n")) == f"its user may not execute its interpreter '{last}'"


@needs_root
def test_an_interpreter_on_a_file_system_without_exec(world: Path) -> None:
    at = folder(world / "at", 0o755)
    inside = script(at / "interpreter")
    path = script(world / "program", f"#!{inside}\n")
    more = (*OWN_MOUNTS, mount(str(at), str(at), MS_BIND), mount("none", str(at), MS_REMOUNT | MS_BIND | MS_NOEXEC))
    failure = start(service(), (str(path),), more=more).failure
    assert failure is not None
    assert failure.cause == f"Permission denied: the file system of its interpreter '{inside}' is mounted with noexec"


@needs_root
def test_where_no_descriptor_is_free_the_error_alone_is_told(world: Path) -> None:
    path = script(world / "program", mode=0o644)
    outcome = start(service(limits={"nofile": (4, 4)}), (str(path),))
    assert outcome.failure is not None
    assert outcome.failure.errno == errno.EACCES
