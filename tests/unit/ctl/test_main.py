"""The command line as a whole: exit codes, streams, ways to end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import __version__
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.main import main
from supervisor.ctl.parsers import OTHER_VERBS
from supervisor.ctl.verbs import VERBS
from supervisor.places import owner_socket
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.fake_supervisor import FakeSupervisor

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-c", "import sys; from supervisor.ctl.main import main; sys.exit(main())"]
ROOT = str(Path(__file__).parents[3])


EVERY_VERB = [
    ("list",),
    ("status", "web"),
    ("why", "web"),
    ("start", "web"),
    ("stop", "web"),
    ("restart", "web"),
    ("sleep", "web"),
    ("reload", "web"),
    ("reopen", "web"),
    ("signal", "TERM", "web"),
    ("kill", "web", "4711"),
    ("reset", "web"),
    ("show", "web"),
    ("fds", "web"),
    ("sessions",),
    ("logs", "web"),
    ("monitor",),
    ("call", "web", "Do"),
    ("accounting",),
    ("check",),
    ("plan",),
    ("apply",),
    ("graph",),
    ("reexec",),
    ("shutdown",),
    ("version",),
]


def test_the_verbs_are_all_here() -> None:
    asking = [verb for verb in VERBS if verb not in ("import", "help")]  # which ask no supervisor
    assert [arguments[0] for arguments in EVERY_VERB] == asking, "add the verb to EVERY_VERB, in the order of VERBS"


@pytest.mark.parametrize("arguments", EVERY_VERB, ids=lambda arguments: arguments[0])
def test_no_supervisor(spawnctl: Spawnctl, path: str, capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert spawnctl(*arguments) == ExitCode.NO_SUPERVISOR
    assert capsys.readouterr().err == f"spawnctl: no supervisor at {path!r}: No such file or directory\n"


def test_a_folder_in_place_of_the_socket_in_it(spawnctl: Spawnctl, path: str, capsys: Capture) -> None:
    os.mkdir(path)
    assert spawnctl("list") == ExitCode.NO_SUPERVISOR
    said = capsys.readouterr().err
    assert said == f"spawnctl: no supervisor at {path!r}: it is a directory, in which the socket is called 'control'\n"


def test_a_socket_that_nobody_listens_on(spawnctl: Spawnctl, path: str, capsys: Capture) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        assert spawnctl("list") == ExitCode.NO_SUPERVISOR
    assert "Connection refused" in capsys.readouterr().err


VERBS_OF_SERVICES = (
    "list", "status", "why", "start", "stop", "restart", "sleep", "reload", "reopen", "reset", "show", "fds",
    "logs", "monitor",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [*((verb,) for verb in VERBS_OF_SERVICES), ("logs", "-f")], ids=str)
def test_no_such_service(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture, arguments: tuple[str, ...]) -> None:
    supervise()
    assert spawnctl(*arguments, "nope") == ExitCode.NO_SUCH_SERVICE
    assert capsys.readouterr().err == "spawnctl: no such service 'nope'\n"
    assert spawnctl(*arguments, "wbe") == ExitCode.NO_SUCH_SERVICE
    assert capsys.readouterr().err == "spawnctl: no such service 'wbe'; did you mean 'web'?\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_not_permitted(supervise: Supervise, path: str) -> None:
    supervise()
    for user in (1234, 1235):
        if user == 1235:  # cannot even connect
            os.chmod(path, 0o600)
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresuid(user, user, user)
            os._exit(len([verb for verb in EVERY_VERB if main(["--socket", path, *verb]) != ExitCode.NOT_PERMITTED]))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("",),
        ("help", "frobnicate"),
        ("help", "list", "status"),
        ("--socket",),
        ("start",),
        ("list", "--frob"),
        ("signal", "TERM"),
        ("signal", "NOPE", "web"),
        ("logs", "web", "-n", "-1"),
        ("logs", "web", "-n", "many"),
        ("fds",),
        ("fds", "web", "qotd"),
        ("kill", "web"),
        ("kill", "all", "4711"),
        ("kill", "web", "4711", "NOPE"),
        ("fds", "all"),
        ("show", "w*"),
        ("logs", "-f", "we?"),
        ("call", "[w]eb", "Do"),
        ("why",),
        ("show",),
        ("logs", "-f"),
        ("monitor", "--frob"),
        ("shutdown", "web"),
        ("check", "web"),
        ("call", "web"),
        ("call", "web", "Do", "nonsense"),
        ("call", "web", "Do", "[]"),
        ("call", "web", "Do", '{"x": NaN}'),
        ("call", "web", "Do", "[" * 100_000),
        ("call", "web", "Do", "{}", "{}"),
        ("call", "web", "Do", "--timeout", "0"),
        ("call", "web", "Do", "--timeout", "nan"),
        ("call", "web", "Do", "--timeout", "1e9"),
        ("call", "web", "Do", "--timeout", "soon"),
        ("--frob", "list"),
    ],
)
def test_wrong_usage(spawnctl: Spawnctl, capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert spawnctl(*arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err


def test_help_has_every_verb(spawnctl: Spawnctl, capsys: Capture) -> None:
    assert spawnctl("--help") == ExitCode.DONE
    text = capsys.readouterr().out
    for verb, what in VERBS.items():
        assert f"  {verb:{max(map(len, VERBS))}}  {what}\n" in text
        assert spawnctl(verb, "--help") == ExitCode.DONE
        assert f"usage: spawnctl {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("restrat", "web"), "no such verb 'restrat'; did you mean 'restart'?"),
        (("bogus",), "no such verb 'bogus'; `spawnctl help` lists the verbs"),
        (("web", "restart"), "no such verb 'web'; the verb comes first: `spawnctl restart web`"),
        (("db.service", "stop"), "no such verb 'db.service'; the verb comes first: `spawnctl stop db.service`"),
        (("cat", "web"), "no such verb 'cat'; `spawnctl show NAME` shows the definition of a service"),
        (("--json", "STATUS"), "no such verb 'STATUS'; did you mean 'status' or 'start'?"),
        (("help", "shwo"), "no such verb 'shwo'; did you mean 'show'?"),
        (("frobnicate",), "no such verb 'frobnicate'; `spawnctl help` lists the verbs"),
        (("\x1b[31m",), r"no such verb '\x1b[31m'; `spawnctl help` lists the verbs"),
    ],
)
def test_wrong_verbs(spawnctl: Spawnctl, capsys: Capture, arguments: tuple[str, ...], message: str) -> None:
    assert spawnctl(*arguments) == ExitCode.USAGE
    assert capsys.readouterr() == ("", f"spawnctl: {message}\n")


def test_help(spawnctl: Spawnctl, capsys: Capture) -> None:
    for verb in VERBS:
        assert spawnctl(verb, "--help") == ExitCode.DONE
        told = capsys.readouterr().out
        assert spawnctl("help", verb) == ExitCode.DONE
        assert capsys.readouterr().out == told
        assert spawnctl("help", verb, "--json") == ExitCode.DONE
        assert json.loads(capsys.readouterr().out) == {"verb": verb, "help": told}
    assert spawnctl("--help") == ExitCode.DONE
    told = capsys.readouterr().out
    assert spawnctl("help") == ExitCode.DONE
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("answer", [b"", b'{"par', b"nonsense\0"])
def test_a_supervisor_that_goes_away(spawnctl: Spawnctl, path: str, capsys: Capture, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.recv(4096)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert spawnctl("list") == ExitCode.FAILED
        thread.join()
    assert capsys.readouterr().err.startswith("spawnctl: the supervisor at ")


def test_an_older_supervisor(spawnctl: Spawnctl, supervise: Supervise, capsys: Capture) -> None:
    def set_up(core: FakeCore) -> None:
        from supervisor.control.verbs import METHODS

        del METHODS["io.spawnd.Check"]

    supervise(set_up)
    assert spawnctl("check") == ExitCode.FAILED
    assert "it is of another version" in capsys.readouterr().err


def test_interrupted(supervise: Supervise, path: str) -> None:
    reached_r, reached_w = os.pipe()

    def set_up(core: FakeCore) -> None:
        core.plans["web"] = "hangs"
        observe = core.observe

        def told(callback: object) -> object:
            os.write(reached_w, b"w")
            return observe(callback)  # type: ignore[arg-type]

        core.observe = told  # type: ignore[method-assign, assignment]

    supervise(set_up)
    os.close(reached_w)
    # tests that a shell has put into the background ignore INT, and so would what they start
    program = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {COMMAND[-1]}"
    process = subprocess.Popen(
        [*COMMAND[:-1], program, "--socket", path, "start", "web"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert os.read(reached_r, 1) == b"w"  # the call is there, so spawnctl waits for its answer
    os.close(reached_r)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", b"")


def test_a_broken_pipe_is_quiet(supervise: Supervise, path: str) -> None:
    supervise()
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [*COMMAND, "--socket", path, "list"], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (ExitCode.BROKEN_PIPE, b"")


@pytest.mark.parametrize(
    ("redirection", "expected"),
    [
        (">/dev/full", (ExitCode.FAILED, b"spawnctl: cannot write: No space left on device\n")),
        (">&-", (ExitCode.DONE, b"")),
        (">&- 2>&-", (ExitCode.DONE, b"")),
    ],
)
def test_output_that_cannot_be_written(
    supervise: Supervise, path: str, redirection: str, expected: tuple[int, bytes]
) -> None:
    supervise()
    command = ["/bin/sh", "-c", f'exec "$0" "$@" {redirection}', *COMMAND, "--socket", path, "list"]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    assert (result.returncode, result.stderr) == expected


def test_descriptions_in_any_locale(supervise: Supervise, path: str) -> None:
    def set_up(core: FakeCore) -> None:
        core.units["web"].status_text = "überall \x1b[31m\n\udc80"

    supervise(set_up)
    for encoding in ("ascii", "utf-8"):
        result = subprocess.run(
            [*COMMAND, "--socket", path, "status", "web"],
            capture_output=True,
            cwd=ROOT,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert result.returncode == ExitCode.NOT_RUNNING, result.stderr
        assert rb"\x1b[31m\n\x80" in result.stdout


def test_starting_is_cheap() -> None:
    """Nothing is imported that takes long and is not needed, and of the verbs only the one used."""
    executed = "*(name for name, module in sys.modules.items() if type(module).__name__ != 'Deferred')"
    code = f"import sys; from supervisor.ctl.main import main; main(['list']); print({executed})"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    heavy = {
        "typing", "dataclasses", "inspect", "subprocess", "logging", "asyncio", "importlib.util", "supervisor.control",
    }  # fmt: skip
    assert not heavy.intersection(result)
    assert [name for name in result if name.startswith("supervisor.ctl.verbs.")] == ["supervisor.ctl.verbs.list"]


# the owner's socket


def test_it_is_preferred(
    path: str, supervise: Supervise, supervisors: list[FakeSupervisor], spawnctl: Spawnctl, capsys: Capture
) -> None:
    supervise()
    supervisors.append(FakeSupervisor(owner_socket(path), lambda core: core.units.__delitem__("web")))
    assert spawnctl("list") == ExitCode.DONE
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["qotd", "mute"]


def test_one_that_nobody_serves_is_passed_over(path: str, supervise: Supervise, spawnctl: Spawnctl) -> None:
    supervise()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(owner_socket(path))
    assert spawnctl("list") == ExitCode.DONE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_one_that_somebody_else_has_made_is_passed_over(
    path: str, supervisors: list[FakeSupervisor], spawnctl: Spawnctl
) -> None:
    supervisors.append(FakeSupervisor(owner_socket(path)))
    os.chown(owner_socket(path), 1234, 1234)
    assert spawnctl("list") == ExitCode.NO_SUPERVISOR


def test_verbs_of_other_tools() -> None:
    """The advice names verbs of ours, and none of them is in the table."""
    assert not OTHER_VERBS.keys() & VERBS.keys()
    for word, advice in OTHER_VERBS.items():
        assert word == word.lower(), "as it is looked up"
        assert set(re.findall(r"`spawnctl (\w+)", advice)) <= VERBS.keys()


def test_version_without_a_supervisor(spawnctl: Spawnctl, capsys: Capture) -> None:
    assert spawnctl("--version") == ExitCode.DONE
    assert capsys.readouterr() == (f"spawnctl {__version__}\n", "")
