"""`logs`: the kept output, what follows it, and the journal."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from supervisor.ctl.errors import ExitCode
from supervisor.log.ring import SIZE, append, make_ring
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.fake_supervisor import FakeSupervisor
from tests.unit.ctl.running import ROOT, Running

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-c", "import sys; from supervisor.ctl.main import main; sys.exit(main())"]


@pytest.fixture
def ring(supervise: Supervise) -> Iterator[int]:
    """The output of web, which the test writes, in a supervisor that runs; `reset` of a service removes it."""
    fd = make_ring("web")

    def set_up(core: FakeCore) -> None:
        core.rings["web"] = fd
        core.reset = lambda names: core.remove(names[0])  # type: ignore[method-assign]

    append(fd, b"one\ntwo\nthree\n")
    supervise(set_up)
    yield fd
    os.close(fd)


@pytest.fixture
def journal(path: str, supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where journalctl is looked for, of a supervisor that leaves output to the journal."""

    def set_up(core: FakeCore) -> None:
        core.journal = True

    supervise(set_up)
    folder = os.path.dirname(path)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Path(folder, "journalctl")


def write_program(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(stat.S_IRWXU)


def test_the_last_lines(ring: int, spawnctl: Spawnctl, capsys: Capture) -> None:
    assert spawnctl("logs", "web", "-n", "2") == ExitCode.DONE
    assert capsys.readouterr().out == "two\nthree\n"
    assert spawnctl("logs", "web", "--json") == ExitCode.DONE
    lines = {"name": "web", "journal": False, "lines": ["one", "two", "three"]}
    assert json.loads(capsys.readouterr().out) == lines
    assert spawnctl("logs", "mute") == ExitCode.FAILED
    assert capsys.readouterr().err == (
        "spawnctl: mute has no log(): its output is kept where its definition has `stderr = log()`\n"
    )
    assert spawnctl("logs", "-f", "mute") == ExitCode.FAILED


def test_no_lines_at_all(supervise: Supervise, spawnctl: Spawnctl, capsys: Capture) -> None:
    ring = make_ring("web")
    try:
        supervise(lambda core: core.rings.update(web=ring))
        assert spawnctl("logs", "web") == ExitCode.DONE
        assert capsys.readouterr() == ("", "spawnctl: web has written nothing\n")
        assert spawnctl("logs", "web", "--json") == ExitCode.DONE
        assert capsys.readouterr().err == ""
    finally:
        os.close(ring)


def test_what_follows(ring: int, path: str) -> None:
    with Running(path, "logs", "-f", "-n", "1", "web") as spawnctl:
        assert spawnctl.line() == "three\n"
        append(ring, b"four\nfi")
        assert spawnctl.text("fi") == "four\nfi", "the beginning of a line comes at once"
        append(ring, b"ve\n")
        assert spawnctl.line() == "ve\n"
        assert spawnctl.interrupt() == ExitCode.INTERRUPTED


def test_what_follows_as_json(ring: int, path: str) -> None:
    with Running(path, "logs", "-f", "-n", "1", "web", "--json") as spawnctl:
        assert spawnctl.row() == {"name": "web", "line": "three"}
        append(ring, b"four\nfi")
        assert spawnctl.row() == {"name": "web", "line": "four"}
        append(ring, b"ve\nsix")
        assert spawnctl.row() == {"name": "web", "line": "five"}
        assert spawnctl.interrupt() == ExitCode.INTERRUPTED


@pytest.mark.parametrize(("option", "end"), [("-f", "no end\n"), ("--json", '{"name": "web", "line": "no end"}\n')])
def test_the_service_is_removed(ring: int, path: str, spawnctl: Spawnctl, option: str, end: str) -> None:
    with Running(path, "logs", "-f", "web", option) as running:
        running.text("three")
        append(ring, b"no end")
        assert spawnctl("reset", "web") == ExitCode.DONE
        code, out, error = running.wait()
    assert code == ExitCode.NO_SUCH_SERVICE
    assert out.endswith(end)
    assert error == "spawnctl: web is not defined any more\n"


def test_lines_that_were_lost_are_counted(ring: int, path: str) -> None:
    lost = 1 + SIZE - (SIZE // 2 - 1)
    with Running(path, "logs", "-f", "web") as spawnctl:
        append(ring, b"half")
        spawnctl.text("three\nhalf")
        append(ring, b" a line\n" + b"x\n" * SIZE)
        assert spawnctl.text("x\n") == "\nx\n", "the line that goes on no more is ended"
        spawnctl.text("x\n" * (SIZE // 2 - 2))
        spawnctl.interrupt()
        assert spawnctl.said() == f"spawnctl: {lost} lines of web not read in time\n"


def test_lines_that_were_lost_are_counted_as_json(ring: int, path: str) -> None:
    with Running(path, "logs", "-f", "web", "-n", "1", "--json") as spawnctl:
        assert spawnctl.row()["line"] == "three"
        append(ring, b"a line\n" + b"x\n" * SIZE)
        assert spawnctl.row() == {"name": "web", "lost": 1 + SIZE - (SIZE // 2 - 1)}
        assert spawnctl.row() == {"name": "web", "line": "x"}


def test_whoever_read_it_is_gone(ring: int, path: str) -> None:
    with Running(path, "logs", "-f", "web") as spawnctl:
        spawnctl.text("three\n")
        spawnctl.close_output()  # and the service says nothing more
        code, _, error = spawnctl.wait()
    assert (code, error) == (ExitCode.BROKEN_PIPE, "")


def test_the_supervisor_ends(ring: int, path: str, supervisors: list[FakeSupervisor]) -> None:
    with Running(path, "logs", "-f", "web") as spawnctl:
        spawnctl.text("three\n")
        os.kill(supervisors[0].pid, signal.SIGKILL)
        code, _, error = spawnctl.wait()
    assert code == ExitCode.FAILED
    assert error == f"spawnctl: the supervisor at {path!r} closed the connection\n"


def test_no_journalctl(journal: Path, spawnctl: Spawnctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(journal.parent))
    for arguments in ([], ["-f"], ["--json"], ["-f", "--json"]):
        assert spawnctl("logs", "web", *arguments) == ExitCode.FAILED
        assert "cannot run journalctl" in capsys.readouterr().err


def test_journalctl_takes_over(journal: Path, path: str) -> None:
    write_program(journal, '#!/bin/sh\necho "$@"\n')
    run = partial(subprocess.run, capture_output=True, text=True, cwd=ROOT, check=True)
    assert run([*COMMAND, "--socket", path, "logs", "web", "-n", "3"]).stdout == "-t web -n 3\n"
    assert run([*COMMAND, "--socket", path, "logs", "web", "-f"]).stdout == "-t web -n 20 -f\n"


def test_the_journal_as_json(journal: Path, spawnctl: Spawnctl, capsys: Capture) -> None:
    write_program(journal, '#!/bin/sh\necho "$@"\n')
    assert spawnctl("logs", "web", "--json") == ExitCode.DONE
    lines = {"name": "web", "journal": True, "lines": ["-t web -n 20 -q -o cat"]}
    assert json.loads(capsys.readouterr().out) == lines
    write_program(journal, "#!/bin/sh\nexit 3\n")
    assert spawnctl("logs", "web", "--json") == ExitCode.FAILED
    assert "journalctl ended with 3" in capsys.readouterr().err


def test_what_follows_in_the_journal_as_json(journal: Path, path: str) -> None:
    write_program(journal, '#!/bin/sh\necho "$@"\nexec sleep 1000\n')
    with Running(path, "logs", "-f", "web", "--json") as spawnctl:
        assert spawnctl.row() == {"name": "web", "line": "-t web -n 20 -f -q -o cat"}
        assert spawnctl.interrupt() == ExitCode.INTERRUPTED
