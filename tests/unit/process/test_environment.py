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
from tests.unit.process.forked import open_numbers, step_error


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


def test_a_file(tmp_path: Path) -> None:
    text = """\
# a comment
A=1

  B = two words \t
C="quoted # and = kept"
D='single "inside"'
E=
F=""
G="open
H=$A\\n
_i9=#x
"""
    assert read(tmp_path / "env", text) == {
        "A": "1",
        "B": "two words",
        "C": "quoted # and = kept",
        "D": 'single "inside"',
        "E": "",
        "F": "",
        "G": '"open',
        "H": "$A\\n",
        "_i9": "#x",
    }


def test_what_shells_and_editors_add(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfexport A=1\r\n; a comment\nexport \t B = export C\nexport=2\nexported=3\n"
    assert read(tmp_path / "env", text) == {"A": "1", "B": "export C", "export": "2", "exported": "3"}


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


def test_bytes_survive(tmp_path: Path) -> None:
    assert os.fsencode(read(tmp_path / "env", b"A=\xff\xfe")["A"]) == b"\xff\xfe"


@pytest.mark.parametrize(
    "line", ["secret", "=secret", "9A=secret", "A B=secret", "export secret", "export =secret", "A=se\0cret"]
)
def test_a_bad_line_is_named_by_number_and_never_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "env"
    assert step_error(lambda: read(path, f"A=1\n{line}\n")) == ("read", str(path), errno.EINVAL)
    with pytest.raises(StepError, match="line 2 is not KEY=value") as caught:
        read_environment_file(str(path))
    assert caught.value.line == 2
    assert "cret" not in str(caught.value)


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
