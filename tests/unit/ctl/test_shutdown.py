"""`shutdown`: waits for the end, which is that of the process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.fake_supervisor import FakeSupervisor

Spawnctl = Callable[..., int]
Supervise = Callable[..., None]
Capture = pytest.CaptureFixture[str]


def ends_in_a_moment(core: FakeCore) -> None:
    core.end = lambda: core.loop.call_later(0.2, lambda: os._exit(0))  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("option", ["", "--json"])
def test_it_waits_for_the_end(
    spawnctl: Spawnctl, supervise: Supervise, supervisors: list[FakeSupervisor], capsys: Capture, option: str
) -> None:
    supervise(ends_in_a_moment)
    assert spawnctl("shutdown", *filter(None, [option])) == ExitCode.DONE
    assert os.waitid(os.P_PID, supervisors[0].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None, "it still runs"
    assert capsys.readouterr() == ('{"ended": true}\n' if option else "", "")


def test_nobody_has_to_wait(spawnctl: Spawnctl, supervise: Supervise, supervisors: list[FakeSupervisor]) -> None:
    supervise()  # of which nothing comes
    assert spawnctl("shutdown", "--no-wait") == ExitCode.DONE
    assert os.waitid(os.P_PID, supervisors[0].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def test_a_supervisor_that_cannot_be_seen_ends_with_its_socket(
    spawnctl: Spawnctl, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "server_pid", lambda self: 0)  # as in another PID namespace
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.recv(4096)
                sock.sendall(b'{"parameters": {}}\0')

        thread = threading.Thread(target=serve)
        thread.start()
        assert spawnctl("shutdown") == ExitCode.DONE
        thread.join()


def test_whose_socket_it_is_is_known(supervise: Supervise, path: str, supervisors: list[FakeSupervisor]) -> None:
    supervise()
    client = Client(path)
    assert client.server_pid() == supervisors[0].pid
    client.close()
