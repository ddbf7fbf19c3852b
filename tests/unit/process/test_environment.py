from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.process.child import LARGEST_FILE, environment, read_environment_file
from supervisor.process.launch import Launch
from tests.unit.process.environment_files import CASES
from tests.unit.process.forked import open_numbers, step_error
from tests.unit.process.launched import service, start


def launch(**changes: object) -> Launch:
    fields = {"argv": (), "service": Service("test"), "stdio": ("/dev/null",) * 3, "error_fd": 9, "env": {}}
    return Launch(**(fields | {"nofile_soft": 1024, "is_root": False} | changes))  # type: ignore[arg-type]


def read(path: Path, text: str | bytes) -> dict[str, str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_environment_file(str(path))


def test_nothing_is_inherited() -> None:
    assert environment(launch()) == {}


def test_protocols() -> None:
    env = environment(launch(fds=(("http", 5), ("", 6)), notify_socket="/run/x", watchdog_usec=2_000_000))
    pid = str(os.getpid())
    assert env == {
        "LISTEN_FDS": "2",
        "LISTEN_PID": pid,
        "LISTEN_FDNAMES": "http:",
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": pid,
    }


def test_later_ones_win(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("A=file1\nB=file1\nC=file1\n")
    two.write_text("B=file2\nLISTEN_FDS=9\n")
    env = environment(launch(env={"A": "own", "Z": "own"}, env_files=(str(one), str(two)), fds=(("x", 3),)))
    assert (env["A"], env["B"], env["C"], env["Z"]) == ("file1", "file2", "file1", "own")
    assert env["LISTEN_FDS"] == "1"


@pytest.mark.parametrize("name", CASES)
def test_a_file_read_by_a_worker(tmp_path: Path, name: str) -> None:
    text, expected = CASES[name]
    path = tmp_path / "env"
    path.write_bytes(text)
    if isinstance(expected, dict):
        found = read_environment_file(str(path))
        assert {os.fsencode(key): os.fsencode(value) for key, value in found.items()} == expected
        return
    with pytest.raises(StepError, match=f"line {expected} is not KEY=value") as caught:
        read_environment_file(str(path))
    assert (caught.value.step, caught.value.path, caught.value.errno) == ("read", str(path), errno.EINVAL)
    assert caught.value.line == expected
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_a_file_read_for_a_program(world: Path, name: str) -> None:
    text, expected = CASES[name]
    path = world / "env"
    path.write_bytes(text)
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


def test_files_for_a_program_that_will_not_do(world: Path) -> None:
    for path, number in ((str(world / "none"), errno.ENOENT), ("/dev/zero", errno.EFBIG), (str(world), errno.EISDIR)):
        outcome = start(service(env_file=(path,)), ("/bin/true",))
        assert outcome.failed_step == ("read", path, number)
        assert outcome.failure is not None
        assert outcome.failure.cause == os.strerror(number)
    os.mkfifo(world / "fifo")
    outcome = start(service(env_file=(f"-{world}/none", f"{world}/fifo")), ("/bin/true",))
    assert (outcome.failure, outcome.status) == (None, 0)


def test_a_file_that_need_not_exist(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=1")
    assert environment(launch(env_files=(f"-{tmp_path}/none", f"-{tmp_path}/env"))) == {"A": "1"}
    (tmp_path / "bad").write_text("secret")
    assert step_error(lambda: environment(launch(env_files=(f"-{tmp_path}/bad",))))[2] == errno.EINVAL
    assert step_error(lambda: environment(launch(env_files=(f"{tmp_path}/none",))))[2] == errno.ENOENT


def test_a_login_comes_first() -> None:
    service = Service("test", login_env={"HOME": "/root", "SHELL": "/bin/sh"})
    assert environment(launch(service=service, env={"HOME": "/srv"})) == {"HOME": "/srv", "SHELL": "/bin/sh"}


def test_a_table_of_which_nothing_is_told() -> None:
    fds = (("http", 5),)
    assert environment(launch(service=Service("test", listen_fds=False), fds=fds, notify_socket="/n")) == {
        "NOTIFY_SOCKET": "/n"
    }


def test_files_that_will_not_do(tmp_path: Path) -> None:
    before = open_numbers()
    missing = str(tmp_path / "missing")
    assert step_error(lambda: read_environment_file(missing)) == ("read", missing, errno.ENOENT)
    assert step_error(lambda: read_environment_file("/dev/zero")) == ("read", "/dev/zero", errno.EFBIG)
    assert step_error(lambda: read_environment_file(str(tmp_path))) == ("read", str(tmp_path), errno.EISDIR)
    assert open_numbers() == before


def test_a_fifo_by_mistake_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_environment_file(str(tmp_path / "fifo")) == {}


def test_a_large_one_is_read(tmp_path: Path) -> None:
    value = "x" * (LARGEST_FILE - 2)
    assert read(tmp_path / "env", f"A={value}") == {"A": value}


printable = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"))


@settings(deadline=None, database=None)
@given(st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), printable))
def test_quoted_values_come_back(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("env") / "env"
    text = "".join(f'{key}="{value}"\n' for key, value in variables.items())
    assert read(path, text) == variables
