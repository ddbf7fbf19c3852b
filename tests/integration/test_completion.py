"""Completion in real shells, which ask a real spawnctl, which asks a real spawnd."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest

from supervisor.ctl.verbs import VERBS
from tests.daemon import BIN, PATIENCE, Daemon
from tests.integration.conftest import Start
from tests.integration.test_reload import SLEEP
from tests.unit.ctl.hostile import answering

FILES = Path(__file__).parents[2] / "conf" / "completion"
INSTALLED = "/usr/lib/spawn-supervisor/bin"  # in the files, until `make install` replaces it
SET_UP = {
    "bash": """
        source completion/spawnctl.bash
        bind 'set show-all-if-ambiguous on'
        bind 'set page-completions off'
        bind 'set completion-query-items 0'
        bind 'set enable-bracketed-paste off'
    """,
    "zsh": """
        fpath=($PWD/completion $fpath)
        autoload -Uz compinit
        compinit -u -D
        LISTMAX=0
        PROMPT_EOL_MARK=
    """,
}
COMMANDS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
AT = "\\64"  # in Lua; the sign itself stands for the folder in definitions of tests
DEFINITIONS = f'web = {{ {SLEEP} }}\ndb = {{ {SLEEP}, status = "stop" }}\n_G["netns{AT}blue"] = {{ {SLEEP} }}\n'
KILL_LINE = "\x15"


def install(home: Path) -> None:
    """Put the files into a folder, with the path of the spawnctl that is tested."""
    (home / "completion").mkdir(exist_ok=True)
    for file in FILES.iterdir():
        (home / "completion" / file.name).write_text(file.read_text().replace(INSTALLED, str(BIN)))


class Shell:
    """An interactive shell at a terminal of its own."""

    def __init__(self, name: str, home: Path) -> None:
        install(home)
        environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(home),
            "ZDOTDIR": str(home),
            "TERM": "dumb",
            "PS1": "",
            "COLUMNS": "200",
            "LC_ALL": "C.UTF-8",
        }
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))  # room for all verbs at once
        self._process = subprocess.Popen(
            COMMANDS[name], stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=home, start_new_session=True
        )
        os.close(slave)
        self.output = ""
        for line in SET_UP[name].strip().splitlines():
            self.type(f"{line.strip()}\n")
        self.type("echo rea''dy\n")
        self.wait_for("ready")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, *texts: str) -> str:
        """Wait until all of these have been shown, in whatever order; everything since the last time."""
        deadline = time.monotonic() + PATIENCE
        while missing := [text for text in texts if text not in self.output]:
            assert time.monotonic() < deadline, f"no {missing} in {self.output!r}"
            if select([self._master], [], [], 0.1)[0]:
                self.output += os.read(self._master, 1 << 16).decode(errors="replace")
        shown, self.output = self.output, ""
        return shown

    def close(self) -> None:
        os.close(self._master)
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=sorted(COMMANDS))
def shell(request: pytest.FixtureRequest, folder: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    shell = Shell(request.param, folder)
    yield shell
    shell.close()


@pytest.fixture
def daemon(spawnd: Start) -> Daemon:
    daemon = spawnd(DEFINITIONS)
    daemon.wait_state("netns@blue", "running")
    return daemon


def test_a_name_is_completed(shell: Shell, daemon: Daemon) -> None:
    for typed in ("fds netns@bl\t", "fds w\t", "fds ne\t"):
        shell.type(f"spawnctl --socket {daemon.socket} {typed}\n")
        shell.wait_for("stdin", "stdout", "stderr")  # the table of a service that was found


def test_all_verbs_are_offered(shell: Shell) -> None:
    shell.type("spawnctl \t\t")
    shell.wait_for(*VERBS)


def test_a_verb_and_an_option_are_completed(shell: Shell, daemon: Daemon) -> None:
    shell.type(f"spawnctl vers\t --socket={daemon.socket} --js\t\n")
    shell.wait_for('{"spawnctl": ')


def test_a_verb_to_be_told_about_is_completed(shell: Shell) -> None:
    shell.type("spawnctl hel\t shutd\t\n")
    shell.wait_for("usage: spawnctl shutdown")


def test_the_path_of_the_socket_is_completed(shell: Shell, daemon: Daemon) -> None:
    (daemon.runtime / "unique-name").symlink_to("control")
    shell.type(f"spawnctl --socket {daemon.runtime}/uniq\t fds web\n")
    shell.wait_for("stdin")


def test_nothing_is_said_without_a_supervisor(shell: Shell, folder: Path) -> None:
    shell.type(f"spawnctl --socket {folder}/none start \t\t{KILL_LINE}echo do''ne\n")
    shown = shell.wait_for("done\r\n")
    assert "supervisor" not in shown
    assert "Traceback" not in shown


@pytest.fixture
def evil(folder: Path) -> Iterator[Path]:
    """A socket, in the folder, on which somebody answers who is no spawnd: names that are commands, and `good`."""
    mark = folder / "mark"
    names = [f"$(touch {mark})", f"`touch {mark}`", f"x;touch {mark}", f"x\ntouch {mark}\n", "x\x1b]0;title\x07", "-f"]
    nodes = [{"name": name, "state": f"running $(touch {mark})\x1b]0;title\x07"} for name in [*names, "good"]]
    with answering(str(folder / "evil"), json.dumps({"parameters": {"nodes": nodes}}).encode() + b"\0"):
        yield folder / "evil"


def test_names_that_are_commands_are_not_offered(shell: Shell, evil: Path) -> None:
    shell.type(f"spawnctl --socket {evil} status \t\t")
    shown = shell.wait_for("good", "all")
    shell.type(f"{KILL_LINE}spawnctl --socket {evil} fds \t\n")  # the only name there is
    shown += shell.wait_for("spawnctl: ")
    assert "]0;" not in shown
    assert not any(text in shown for text in ("$(touch", "`touch", ";touch"))
    assert not (evil.parent / "mark").exists()


def trap(folder: Path) -> Path:
    """A folder with a spawnctl in it that leaves a mark when it is executed."""
    place = folder / "trap"
    place.mkdir()
    (place / "spawnctl").write_text(f"#!/bin/sh\necho executed >> {place}/mark\n")
    (place / "spawnctl").chmod(0o755)
    return place


def test_a_path_that_is_typed_is_not_executed(shell: Shell, folder: Path) -> None:
    place = trap(folder)
    for typed in (f"{place}/spawnctl", "./trap/spawnctl", "trap/../trap/spawnctl"):
        shell.type(f"{typed} shutd\t --no-w\t")
        shell.wait_for("shutdown", "--no-wait")  # as the installed one knows
        shell.type(f"{KILL_LINE}echo do''ne\n")
        shell.wait_for("done\r\n")
    assert not (place / "mark").exists()


def fish(line: str, home: Path) -> list[str]:
    """Return the candidates of fish with their descriptions."""
    install(home)
    script = 'source completion/spawnctl.fish; complete -C "$argv[1]"'
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    command = ["fish", "--no-config", "-c", script, line]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, timeout=60, check=True)
    assert result.stderr == ""
    return result.stdout.splitlines()


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish(daemon: Daemon) -> None:
    home, control = daemon.folder, f"spawnctl --socket {daemon.socket}"
    assert {line.partition("\t")[0] for line in fish("spawnctl ", home)} == VERBS.keys()
    assert {"all\tevery service", "db\tstopped", "web\trunning"} < set(fish(f"{control} start ", home))
    assert fish(f"{control} start --no-wait netns@b", home) == ["netns@blue\trunning"]
    assert "--no-wait\tdo not wait until it is done" in fish(f"{control} start --", home)
    assert [line.partition("\t")[0] for line in fish("spawnctl help shutd", home)] == ["shutdown"]
    assert fish(f"spawnctl --socket {daemon.runtime}/contr", home)[0] == str(daemon.socket)
    assert fish(f"spawnctl --socket {home}/none start ", home) == []


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_trusts_nobody(folder: Path, evil: Path) -> None:
    place = trap(folder)
    offered = fish(f"spawnctl --socket {evil} status ", folder)
    assert {line.partition("\t")[0] for line in offered} == {"good", "all"}
    assert "\x1b" not in "".join(offered)
    for typed in (f"{place}/spawnctl", "./trap/spawnctl"):
        assert {line.partition("\t")[0] for line in fish(f"{typed} ", folder)} == VERBS.keys()
    assert not (place / "mark").exists()
    assert not (folder / "mark").exists()
