"""A loss and an exec of spawnd under systemd, with clients that come all the time."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.daemon import wait_until
from tests.vm.guest.installed import (
    PATIENCE,
    PAUSE,
    SLEEP,
    call,
    clean_up,
    main_pid,
    messages,
    run,
    show,
    signal_main,
    started,
    state,
    wait_other_spawnd,
    wait_running,
    wait_show,
)

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")

PORT = 1717
ANSWER = "import socket; s = socket.socket(fileno=3)\nwhile True: c = s.accept()[0]; c.sendall(b'hello'); c.close()"
LISTENER = f"""exec = "/usr/bin/python3", arg = {{ "-c", [==[{ANSWER}]==] }}, fd = {{ tcp("127.0.0.1", {PORT}) }}"""
HOG = "import time; data = []\\nwhile True: data.append(bytearray(1 << 20)); time.sleep(0.01)"


@pytest.fixture(autouse=True)
def _alone() -> None:
    """A check begins with nothing of spawnd running."""
    if state() != "inactive":
        clean_up()


@dataclass
class Clients:
    """The outcome of the clients: the number of answers, and the problems of the others."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)

    def one(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", PORT), PATIENCE) as sock:
                assert sock.recv(16) == b"hello"
            self.answered += 1
        except (OSError, AssertionError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")


@contextmanager
def load() -> Iterator[Clients]:
    """With a client after the other."""
    clients, ended = Clients(), threading.Event()

    def come() -> None:
        while not ended.wait(0.1):
            clients.one()

    thread = threading.Thread(target=come)
    thread.start()
    try:
        yield clients
    finally:
        ended.set()
        thread.join()


def wait_more(clients: Clients) -> None:
    before = clients.answered
    wait_until(lambda: clients.answered > before + 5 or clients.wrong, "clients that are answered", PATIENCE)


def test_kill_9_of_spawnd_under_load() -> None:
    with started(f"web = {{ {LISTENER} }}"):
        pid, spawnd = wait_running("web"), main_pid()
        with load() as clients:
            for _ in range(5):
                wait_more(clients)
                os.kill(spawnd, signal.SIGKILL)
                spawnd = wait_other_spawnd(spawnd)
            wait_more(clients)
        assert clients.wrong == []
        assert wait_running("web") == pid


def test_a_service_that_dies_while_there_is_no_spawnd_keeps_its_socket() -> None:
    """systemd has it."""
    with started(f"web = {{ {LISTENER} }}"):
        pid, spawnd = wait_running("web"), main_pid()
        wait_show("NFileDescriptorStore", "1")
        with load() as clients:
            wait_more(clients)
            os.kill(spawnd, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            os.kill(spawnd, signal.SIGKILL)
            spawnd = wait_other_spawnd(spawnd)
            assert wait_running("web", other_than=pid)
            wait_more(clients)
        # of one that it had accepted the connection died with it
        assert [problem for problem in clients.wrong if "refused" in problem] == []
        assert len(clients.wrong) <= 1
        wait_show("NFileDescriptorStore", "1")
        call("Stop", names=["web"])
        wait_show("NFileDescriptorStore", "0")


def test_reexec_under_load() -> None:
    with started(f"web = {{ {LISTENER} }}"):
        pid, spawnd = wait_running("web"), main_pid()
        with load() as clients:
            for _ in range(5):
                wait_more(clients)
                assert call("Reexec")["pid"] == spawnd
            wait_more(clients)
        assert clients.wrong == []
        assert (wait_running("web"), main_pid(), show("NRestarts")) == (pid, spawnd, "0")
        wait_show("SubState", "running")


def test_each_signal_of_systemctl_kill() -> None:
    with started(f'web = {{ {SLEEP}, restart_signal = "RTMIN+1" }}\nother = {{ {SLEEP} }}'):
        pid, other, spawnd = wait_running("web"), wait_running("other"), main_pid()
        signal_main("USR2")
        wait_until(lambda: any("web: running for" in text for text, _ in messages(spawnd)), "states", PATIENCE, PAUSE)
        signal_main("RTMIN+1")
        assert wait_running("web", other_than=pid)
        signal_main("RTMIN+7")
        text = "signal RTMIN+7: no service has it as its restart_signal"
        wait_until(lambda: text in [text for text, _ in messages(spawnd)], "a word about it", PATIENCE, PAUSE)
        signal_main("HUP")
        wait_until(lambda: any("definitions reloaded" in text for text, _ in messages(spawnd)), "it", PATIENCE, PAUSE)
        assert (wait_running("other"), main_pid()) == (other, spawnd)
        signal_main("TERM")
        wait_show("ActiveState", "inactive")


def test_why_names_an_out_of_memory_kill() -> None:
    hog = f'exec = "/usr/bin/python3", arg = {{ "-c", "{HOG}" }}, memory_max = "24m", memory_swap_max = 0'
    with started(f'hog = {{ {hog}, healthy_after = "1h", start_limit = 1 }}'):
        wait_until(lambda: call("Status", names=["hog"])["services"][0]["state"] == "failed", "it", PATIENCE, PAUSE)
        assert "out of memory" in run("/usr/bin/env", "spawnctl", "why", "hog")
