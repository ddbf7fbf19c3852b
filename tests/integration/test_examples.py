"""The shipped examples under a real spawnd, asked by the clients that people have."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.daemon import BIN, Daemon, wait_until
from tests.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "conf" / "examples"
SHIPPED_PLACE = "/usr/share/spawn-supervisor/examples"


@pytest.fixture
def quotes() -> int:
    return free_port()


@pytest.fixture
def files() -> int:
    return free_port()


@pytest.fixture
def messages() -> int:
    return free_port()


@pytest.fixture
def examples(folder: Path, quotes: int, files: int, messages: int) -> Iterator[Daemon]:
    """The examples as they ship, but for their place and ports; the quotes are readable by their owner alone."""
    place = folder / "examples"
    shutil.copytree(EXAMPLES, place)
    for path in (place, *place.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
    for name in ("quotes.txt", "quotes.index"):
        (place / name).chmod(0o600)
    definitions = (place / "services.lua").read_text().replace(SHIPPED_PLACE, str(place))
    ports = {"1717": quotes, "6969": files, "1718": messages}
    definitions = re.sub("|".join(ports), lambda found: str(ports[found[0]]), definitions)
    with Daemon(folder, definitions) as daemon:
        daemon.wait_state("qotd", "running")
        daemon.wait_state("tftp", "running")
        daemon.wait_state("motd", "running")
        yield daemon


def run(*command: str, text: str = "") -> str:
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quotes_by_nc(examples: Daemon, quotes: int) -> None:
    texts = (EXAMPLES / "quotes.txt").read_text().split("\n%\n")
    known = {text.strip().removesuffix("%").strip() for text in texts}
    assert run("nc", "-w", "2", "127.0.0.1", str(quotes)).strip() in known
    assert run("nc", "-u", "-w", "1", "127.0.0.1", str(quotes), text="x\n").strip() in known


def test_files_by_curl(examples: Daemon, files: int) -> None:
    assert run("curl", "-sS", f"tftp://127.0.0.1:{files}/hello.txt") == (EXAMPLES / "tftpboot/hello.txt").read_text()
    result = subprocess.run(
        ["curl", "-sS", f"tftp://127.0.0.1:{files}/../services.lua"], capture_output=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert result.stdout == b""


def test_a_message_that_is_changed(examples: Daemon, messages: int) -> None:
    assert run("nc", "-w", "2", "127.0.0.1", str(messages)) == "Nothing to say today.\n"
    assert examples.ctl("call", "motd", "SetMessage", '{"message": "Grüße."}').returncode == 0
    assert run("nc", "-w", "2", "127.0.0.1", str(messages)) == "Grüße.\n"
    stats = examples.ctl("call", "motd", "Stats", "--json")
    assert json.loads(stats.stdout) == {"served": 2, "message": "Grüße."}
    wrong = examples.ctl("call", "motd", "SetMessage", '{"message": 1}')
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "spawnctl: motd: org.varlink.service.InvalidParameter: parameter 'message'\n"


def test_no_client_is_refused_while_qotd_is_dead(examples: Daemon, quotes: int) -> None:
    for _ in range(5):
        pid = examples.wait_pid("qotd")
        os.kill(pid, signal.SIGSTOP)  # from now on nobody accepts, and what connects waits in the backlog
        with socket.create_connection(("127.0.0.1", quotes), timeout=10) as client:
            os.kill(pid, signal.SIGKILL)
            assert client.recv(1000) != b""
        examples.wait_pid("qotd", other_than=pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: user switching")
def test_what_the_services_run_as(examples: Daemon) -> None:
    status = Path(f"/proc/{examples.wait_pid('qotd')}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] != "0"
    assert fields["Groups"].strip() == ""
    assert fields["CapPrm"] == fields["CapEff"] == "0" * 16
    assert fields["Umask"] == "0077"


@contextmanager
def make_run(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`make run` and what it says, in a copy of what it needs of the checkout, with what has been installed there."""
    root = Path(__file__).parents[2]
    shutil.copy(root / "Makefile", folder)
    for name in ("conf", "tools"):
        shutil.copytree(root / name, folder / name)
    (folder / ".venv").symlink_to(BIN.parent)
    said = folder / "log"
    command = ["make", "-o", ".venv/project.stamp", "run"]
    with said.open("wb") as log:
        run = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        yield run, said
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGTERM)
        run.wait(60)
        place = Path((folder / "build" / "place").read_text().strip())
        if place != folder / "build":  # where others could not have used it
            shutil.rmtree(place)


def test_make_run_takes_other_ports_where_its_own_are_taken(folder: Path) -> None:
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else may have it already
            taken.bind(("127.0.0.1", 1717))
            taken.listen()
        with make_run(folder) as (_, said):
            found = wait_until(lambda: re.search(r"nc -w 1 127\.0\.0\.1 (\d+)", said.read_text()), "what to try")
            assert found is not None
            port = int(found[1])
            assert port != 1717
            assert "Ports are taken: the examples have" in said.read_text()
            assert wait_until(lambda: _quote(port), "a quote")
            assert "secret" not in said.read_text()


def in_a_terminal(command: str) -> str:
    """Run a line as somebody would who types it: the shell does not have it among its arguments."""
    result = subprocess.run(["sh"], input=command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, (command, result)
    return result.stdout


@pytest.mark.parametrize("name", ["checkout", "my checkout"])
def test_what_make_run_says_is_true(folder: Path, name: str) -> None:
    """Each line that can be typed is typed, after the terminal has been closed, and the one that ends it last."""
    (folder / name).mkdir()
    with make_run(folder / name) as (run, said):
        wait_until(lambda: "signal KILL" in said.read_text(), "what to try")
        assert "operator expected" not in said.read_text()
        lines = [re.split(" {2,}", line[2:], maxsplit=1) for line in said.read_text().splitlines() if line[:2] == "  "]
        (shutdown, *_), *rest = [line for line in lines if line[0]]
        quote, datagram, file, message, change, services, kill = [line[0] for line in rest]
        wait_until(lambda: in_a_terminal(f"{services} --json || true").count('"state": "running"') == 3, "the services")
        os.killpg(run.pid, signal.SIGHUP)
        quotes = (EXAMPLES / "quotes.txt").read_text()
        assert in_a_terminal(quote).strip() in quotes
        assert in_a_terminal(datagram).strip() in quotes
        assert in_a_terminal(file) == (EXAMPLES / "tftpboot/hello.txt").read_text()
        assert in_a_terminal(message) == "Nothing to say today.\n"
        in_a_terminal(change)
        assert in_a_terminal(message) == "Hello.\n"
        pids = [pid_of_qotd(services)]
        in_a_terminal(kill)
        assert in_a_terminal(quote).strip() in quotes
        wait_until(lambda: pid_of_qotd(services) not in (*pids, None), "another pid")
        in_a_terminal(shutdown)
        run.wait(60)
        with pytest.raises(ProcessLookupError):
            os.killpg(run.pid, 0)


def pid_of_qotd(services: str) -> int | None:
    pids: dict[str, int | None] = {row["name"]: row["pid"] for row in json.loads(in_a_terminal(f"{services} --json"))}
    return pids["qotd"]


def _quote(port: int) -> bytes:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        return client.recv(1000)
    return b""


def test_the_first_example_of_the_readme_runs_as_it_is(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    example = text.partition("```lua\n")[2].partition("```")[0]
    with Daemon(folder, example.replace("7007", str(free_port()))) as daemon:
        daemon.wait_running("hello")
        check = [daemon.program, "--check", "--strict", "--config", str(daemon.definitions)]
        result = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        assert (result.stdout, result.stderr) == ("OK: 1 service\n", "")
