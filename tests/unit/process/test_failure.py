from __future__ import annotations

import errno
import json
import os

import pytest

from supervisor.errors import StepError
from supervisor.process.failure import ErrorPipe, failed, read_failure
from tests.unit.process.forked import read_all


def reported(error: BaseException) -> bytes:
    read_end, write_end = os.pipe()
    pipe = ErrorPipe(write_end)
    pipe.report(error)
    pipe.close()
    return read_all(read_end)


def test_one_object_with_four_keys() -> None:
    data = reported(failed("exec", "/bin/odd\udcff", errno.ENOENT))
    assert json.loads(data) == {
        "step": "exec",
        "path": "/bin/odd\udcff",
        "errno": errno.ENOENT,
        "cause": "No such file or directory",
    }
    failure = read_failure(data)
    assert failure is not None
    assert str(failure) == "cannot exec '/bin/odd\\xff': No such file or directory (ENOENT)"


def test_a_line_to_correct_comes_along() -> None:
    failure = read_failure(reported(failed("read", "/etc/a.env", errno.EINVAL, "no variable", 7)))
    assert failure is not None
    assert (failure.path, failure.line) == ("/etc/a.env", 7)


@pytest.mark.parametrize(
    ("error", "text", "number"),
    [
        (MemoryError(), "cannot set up: Cannot allocate memory (ENOMEM)", errno.ENOMEM),
        (PermissionError(errno.EPERM, "no"), "cannot set up: PermissionError: [Errno 1] no (EPERM)", errno.EPERM),
        (
            OSError("/nowhere/x.so: cannot open shared object file: No such file or directory"),
            "cannot set up: cannot load '/nowhere/x.so': it does not exist; install spawn-supervisor again",
            0,
        ),
    ],
)
def test_any_exception_is_reported(error: BaseException, text: str, number: int) -> None:
    failure = read_failure(reported(error))
    assert isinstance(failure, StepError)
    assert (str(failure), failure.errno) == (text, number)


def test_memory_that_runs_out_while_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> str:
        raise MemoryError

    read_end, write_end = os.pipe()
    pipe = ErrorPipe(write_end)
    monkeypatch.setattr(json, "dumps", refuse)
    pipe.report(failed("exec", "/bin/x", errno.ENOENT))
    pipe.close()
    monkeypatch.undo()
    assert str(read_failure(read_all(read_end))) == "cannot set up: Cannot allocate memory (ENOMEM)"


REPORT = {"step": "read", "path": "/\udcc3\udca9\udcff", "cause": "", "about": "", "name": "", "value": 0, "errno": 2}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, "No such file or directory"),
        ({"cause": "as \udcc3\udca9"}, "as é"),
        ({"about": "link", "name": "/\udcc3\udca9"}, "the symbolic link '/é' is not followed: a user can set it"),
        ({"about": "hard link", "name": "/a"}, "'/a' is a hard link that a user can have made"),
        ({"about": "foreign", "name": "/a", "value": 5}, "'/a' belongs to uid 5, who can have put it there: "),
        ({"about": "proc"}, "a link of a user leads into /proc"),
        ({"about": "line", "value": 3}, "line 3 is not KEY=value"),
        ({"about": "program", "value": 1, "name": "#!/\udcc3\udca9"}, "the interpreter that it names, '/é', does not"),
    ],
)
def test_a_report_without_texts(changes: dict[str, object], cause: str) -> None:
    """As `launch` makes it: bytes beyond ASCII are halves of pairs."""
    failure = read_failure(json.dumps(REPORT | changes).encode())
    assert failure is not None
    assert (failure.step, failure.path, failure.errno) == ("read", "/é\udcff", errno.ENOENT)
    assert failure.cause.startswith(cause)


def test_nothing_is_no_failure() -> None:
    assert read_failure(b"") is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'"x"', b"\xff", b'{"step": 1, "path": "", "errno": "x"}'])
def test_what_cannot_be_read_is_a_failure(data: bytes) -> None:
    failure = read_failure(data)
    assert failure is not None
    assert "unreadable report" in str(failure)
