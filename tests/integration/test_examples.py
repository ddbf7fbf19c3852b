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
from pathlib import Path

import pytest

from tests.daemon import Daemon

EXAMPLES = Path(__file__).parents[2] / "conf" / "examples"
SHIPPED_PLACE = "/usr/share/spawn-supervisor/examples"


def free_port() -> int:
    """A port that is free for both protocols now, and most likely still is in a moment."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


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
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, check=False)
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
        ["curl", "-sS", f"tftp://127.0.0.1:{files}/../services.lua"], capture_output=True, timeout=20, check=False
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
