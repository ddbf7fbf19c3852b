from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from tests.unit.process.environment_files import CASES, LARGEST
from tests.unit.process.launched import Outcome, service, start, told


def environment(wanted: Service | None = None, **changes: Any) -> dict[str, str]:
    """Return the environment of a forked worker of the user who runs the tests."""
    found = told(wanted or service(), lambda: dict(os.environ), is_root=False, **changes)
    assert isinstance(found, dict)
    return found


def refused(path: Path | str) -> Outcome:
    """Return the failure of a program with that environment file."""
    return start(service(env_file=(str(path),)), ("/bin/true",))


def test_nothing_is_inherited() -> None:
    assert environment() == {}


def test_protocols() -> None:
    def look() -> list[object]:
        return [dict(os.environ), os.getpid()]

    fds = (("http", 0), ("", 0))
    env, pid = told(service(), look, fds=fds, notify_socket="/run/x", watchdog_usec=2_000_000)
    assert env == {
        "LISTEN_FDS": "2",
        "LISTEN_PID": str(pid),
        "LISTEN_FDNAMES": "http:",
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": str(pid),
    }


def test_later_ones_win(world: Path) -> None:
    one, two = world / "one", world / "two"
    one.write_text("A=file1\nB=file1\nC=file1\n")
    two.write_text("B=file2\nLISTEN_FDS=9\n")
    env = environment(env={"A": "own", "Z": "own"}, env_files=(str(one), str(two)), fds=(("x", 0),))
    assert (env["A"], env["B"], env["C"], env["Z"]) == ("file1", "file2", "file1", "own")
    assert env["LISTEN_FDS"] == "1"


@pytest.mark.parametrize("name", CASES)
def test_a_file(world: Path, name: str) -> None:
    text, expected = CASES[name]
    path = world / "env"
    path.write_bytes(text)
    if isinstance(expected, dict):
        found = environment(env_files=(str(path),))
        assert {os.fsencode(key): os.fsencode(value) for key, value in found.items()} == expected
    with open(world / "out", "w+b") as out:
        stdio = ("/dev/null", out.fileno(), out.fileno())
        outcome = start(service(env_file=(str(path),)), ("/usr/bin/env", "-0"), stdio=stdio)
        out.seek(0)
        lines = out.read().split(b"\0")[:-1]
    if isinstance(expected, dict):
        assert dict(line.split(b"=", 1) for line in lines) == expected
        assert len(lines) == len(expected)
        return
    assert outcome.failed_step == ("read", str(path), errno.EINVAL)
    assert outcome.failure is not None
    assert outcome.failure.line == expected
    assert str(outcome.failure) == f"cannot read {str(path)!r}: line {expected} is not KEY=value (EINVAL)"


def test_files_that_will_not_do(world: Path) -> None:
    for path, number in ((str(world / "none"), errno.ENOENT), ("/dev/zero", errno.EFBIG), (str(world), errno.EISDIR)):
        outcome = refused(path)
        assert outcome.failed_step == ("read", path, number)
        assert outcome.failure is not None
        assert outcome.failure.cause == os.strerror(number)


def test_a_fifo_by_mistake_holds_nothing_up(world: Path) -> None:
    os.mkfifo(world / "fifo")
    assert environment(env_files=(f"{world}/fifo",)) == {}


def test_a_file_that_need_not_exist(world: Path) -> None:
    (world / "env").write_text("A=1")
    assert environment(env_files=(f"-{world}/none", f"-{world}/env")) == {"A": "1"}
    (world / "bad").write_text("secret")
    assert refused(f"-{world}/bad").failed_step == ("read", str(world / "bad"), errno.EINVAL)


def test_a_login_comes_first() -> None:
    login = service(login_env={"HOME": "/root", "SHELL": "/bin/sh"})
    assert environment(login, env={"HOME": "/srv"}) == {"HOME": "/srv", "SHELL": "/bin/sh"}


def test_a_table_of_which_nothing_is_told() -> None:
    silent = service(listen_fds=False)
    assert environment(silent, fds=(("http", 0),), notify_socket="/n") == {"NOTIFY_SOCKET": "/n"}


def test_a_large_one_is_read(world: Path) -> None:
    value = "x" * (LARGEST - 2)
    (world / "env").write_text(f"A={value}")
    assert environment(env_files=(f"{world}/env",)) == {"A": value}
    (world / "env").write_text(f"A={value}x")
    assert refused(world / "env").failed_step == ("read", str(world / "env"), errno.EFBIG)


printable = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"))


@settings(deadline=None, database=None, max_examples=40)
@given(st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), printable))
def test_quoted_values_come_back(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("env") / "env"
    path.write_text("".join(f'{key}="{value}"\n' for key, value in variables.items()))
    assert environment(env_files=(str(path),)) == variables
