"""Rules of Landlock bind the program: it opens what a rule names, and nothing else."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from supervisor.launch.operations import Kind, operation
from supervisor.linux.capabilities import landlock_version
from tests.unit.launch.filters import install, refusing
from tests.unit.process.conftest import world
from tests.unit.process.launched import Outcome, service, start


def _has_landlock() -> bool:
    try:
        return landlock_version() > 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _has_landlock(), reason="no Landlock on this host")
__all__ = ["world"]

EXECUTE, READ_FILE, READ_DIR, MAKE_SYMBOLIC_LINK = 1, 4, 8, 1 << 12  # <linux/landlock.h>
READ = EXECUTE | READ_FILE | READ_DIR
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc")


def rules(more: Iterable[bytes] = (), handled: int = READ) -> list[bytes]:
    """Operations for a program that may only read from the system, and as `more` say."""
    return [
        operation(Kind.NO_NEW_PRIVS, "set no_new_privs"),
        operation(Kind.RULESET, "make a rule set", numbers=[handled, 0, 0]),
        *(operation(Kind.PATH_RULE, "keep", path, [READ]) for path in SYSTEM if Path(path).exists()),
        *more,
        operation(Kind.RESTRICT, "restrict"),
    ]


def cat(path: Path, more: Iterable[bytes] = (), **changes: Any) -> Outcome:
    return start(service(), ("/bin/cat", str(path)), more=rules(more), **changes)


@pytest.fixture
def secret(world: Path) -> Path:
    path = world / "secret"
    path.write_text("told")
    path.chmod(0o644)
    return path


def test_a_path_without_a_rule_cannot_be_opened(secret: Path) -> None:
    outcome = cat(secret)
    assert outcome.failure is None
    assert outcome.output == f"/bin/cat: {secret}: Permission denied\n"


def test_a_path_with_a_rule_can_be_opened(secret: Path) -> None:
    for path in (secret, secret.parent):
        outcome = cat(secret, [operation(Kind.PATH_RULE, "keep", str(path), [READ_FILE])])
        assert (outcome.failure, outcome.output) == (None, "told")


def test_a_descriptor_can_have_a_rule(secret: Path) -> None:
    with open(secret) as file:
        rule = operation(Kind.DESCRIPTOR_RULE, "keep", numbers=[3, READ_FILE])
        outcome = cat(secret, [rule], fds=(("secret", file.fileno()),))
    assert (outcome.failure, outcome.output) == (None, "told")


def test_the_program_itself_needs_a_rule() -> None:
    more = [
        operation(Kind.NO_NEW_PRIVS),
        operation(Kind.RULESET, "make a rule set", numbers=[EXECUTE, 0, 0]),
        operation(Kind.RESTRICT, "restrict"),
    ]
    assert start(service(), ("/bin/true",), more=more).failed_step == ("exec", "/bin/true", errno.EACCES)


def test_the_process_keeps_no_descriptor_of_it(secret: Path) -> None:
    script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done"
    more = [
        operation(Kind.NO_NEW_PRIVS),
        operation(Kind.RULESET, "make a rule set", numbers=[MAKE_SYMBOLIC_LINK, 0, 0]),
        operation(Kind.PATH_RULE, "keep", "/tmp", [MAKE_SYMBOLIC_LINK]),
        operation(Kind.RESTRICT, "restrict"),
    ]
    outcome = start(service(), ("/bin/sh", "-c", script), more=more)
    assert outcome.failure is None
    assert set(outcome.output.split()) <= {"0", "1", "2", "3"}  # and that of the folder itself


@pytest.mark.parametrize(
    ("broken", "step"),
    [
        (operation(Kind.PATH_RULE, "keep", "/nowhere", [READ]), ("keep", "/nowhere", errno.ENOENT)),
        (operation(Kind.PATH_RULE, "keep", "/usr", [2]), ("keep", "/usr", errno.EINVAL)),
        (operation(Kind.DESCRIPTOR_RULE, "keep 77", numbers=[77, READ]), ("keep 77", "", errno.EBADF)),
        (operation(Kind.DESCRIPTOR_RULE, "keep 0", numbers=[0, READ]), ("keep 0", "", errno.EINVAL)),
    ],
    ids=["no such path", "not handled", "not open", "not for a file"],
)
def test_a_rule_that_fails_is_told(broken: bytes, step: tuple[str, str, int]) -> None:
    assert start(service(), ("/bin/true",), more=rules([broken])).failed_step == step


def test_a_right_that_the_kernel_does_not_know() -> None:
    outcome = start(service(), ("/bin/true",), more=rules(handled=1 << 63))
    assert outcome.failed_step == ("make a rule set", "", errno.EINVAL)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP], ids=["old kernel", "disabled at boot"])
def test_a_host_without_landlock(number: int) -> None:
    outcome = start(
        *(service(), ("/bin/true",)),
        before=lambda: install(refusing(number, "landlock_create_ruleset")),
        more=rules(),
    )
    assert outcome.failed_step == ("make a rule set", "", number)
