"""Unix sockets on a file system whose server does not answer: they keep nobody but their own service waiting."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from pathlib import Path

import pytest

from tests import automount, fuse
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.unit.waiting import HELD_UP

ROOT = 'user = "root"'
SLEEP = f'exec = "/bin/sleep", arg = {{ "100000" }}, {ROOT}'
NOBODY = pwd.getpwnam("nobody")
pytestmark = pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")


def go_on(daemon: Daemon) -> None:
    """Everything else goes on."""
    for command in (("restart", "b"), ("reexec",), ("restart", "b"), ("list",)):
        assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0


@pytest.mark.parametrize("opcode", [fuse.LOOKUP, fuse.MKNOD, fuse.SETATTR], ids=["lookup", "mknod", "setattr"])
def test_a_socket_that_hangs_in_its_binding_keeps_nobody_waiting(spawnd: Start, opcode: int) -> None:
    with fuse.unanswering(opcode) as path:
        fd = f'fd = {{ stream("{path}.sock") }}'
        daemon = spawnd(f"a = {{ {SLEEP}, {fd}, stop_timeout = '1s' }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        assert daemon.state("a") == "starting"
        go_on(daemon)
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        wait_until(lambda: daemon.state("a") in ("stopping", "stopped"), "the stop")
    daemon.wait_state("a", "stopped")


def test_a_client_that_hangs_in_its_connecting_keeps_nobody_waiting(spawnd: Start) -> None:
    with fuse.unanswering(fuse.LOOKUP) as path:
        fd = f'fd = {{ stream("{path}.sock", "connect") }}'
        daemon = spawnd(f"a = {{ {SLEEP}, {fd} }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        go_on(daemon)
        assert daemon.state("a") == "starting"


def test_a_socket_whose_file_hangs_in_its_removal_keeps_nobody_waiting(spawnd: Start) -> None:
    with fuse.unanswering(fuse.UNLINK) as path:
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ stream("{path}.sock") }} }}\nb = {{ {SLEEP} }}')
        daemon.wait_running("a")
        daemon.wait_running("b")
        assert daemon.ctl("stop", "a", timeout=HELD_UP).returncode == 0
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(f"{path}.sock")
        go_on(daemon)


def test_a_socket_whose_server_answers(spawnd: Start) -> None:
    """It is the same over restarts and an exec, has the path of the definition, and is removed and made again."""
    with fuse.unanswering() as folder:
        path = f"{folder}.sock"
        fd = f'fd = {{ stream("{path}", {{ mode = "0620" }}), tcp("127.0.0.1", 0) }}'
        daemon = spawnd(f"a = {{ {SLEEP}, {fd} }}")
        for command in (["restart", "a"], ["reexec"], ["restart", "a"], ["apply"], ["stop", "a"]):
            pid = daemon.wait_running("a")
            assert path in Path("/proc/net/unix").read_text()
            assert os.stat(path).st_mode & 0o777 == 0o620
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                assert client.getpeername() == path
            assert os.readlink(f"/proc/{pid}/fd/3").startswith("socket:")
            assert daemon.ctl(*command).returncode == 0
        assert daemon.ctl("start", "a").returncode == 0  # perhaps before the file is gone
        assert "opened anew" not in daemon.log()
        assert daemon.ctl("stop", "a").returncode == 0
        wait_until(lambda: not os.path.exists(path), "the removal")


def test_a_socket_over_a_loss(spawnd: Start) -> None:
    with fuse.unanswering() as folder:
        path = f"{folder}.sock"
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ stream("{path}") }} }}')
        pid = daemon.wait_running("a")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)  # stays in the backlog
            daemon.lose()
            daemon.again()
            assert daemon.wait_running("a") == pid
            assert daemon.ctl("restart", "a").returncode == 0
            daemon.wait_running("a", other_than=pid)
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)


def test_a_removed_socket_is_bound_anew(spawnd: Start) -> None:
    with fuse.unanswering() as folder:
        path = f"{folder}.sock"
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ stream("{path}") }} }}')
        pid = daemon.wait_running("a")
        os.unlink(path)
        assert daemon.ctl("restart", "a").returncode == 0
        daemon.wait_running("a", other_than=pid)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_a_path_that_others_have_taken(spawnd: Start) -> None:
    with fuse.unanswering() as folder, socket.socket(socket.AF_UNIX) as other:
        path = f"{folder}.sock"
        other.bind(path)
        other.listen()
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ stream("{path}") }} }}')
        daemon.wait_log(f"cannot bind stream '{path}': Address already in use (EADDRINUSE)")


@pytest.mark.skipif(not automount.is_possible(), reason="needs autofs")
@pytest.mark.parametrize(
    "key", ['stdout = file("{folder}/log", "a")', 'fd = {{ stream("{folder}/sock") }}'], ids=["file", "socket"]
)
def test_a_path_behind_an_automounter_keeps_nobody_waiting(spawnd: Start, key: str) -> None:
    """Not even the second access, which waits for the mount that the first one has begun."""
    with automount.unanswering() as folder:
        daemon = spawnd(f"a = {{ {SLEEP}, {key.format(folder=folder)}, stop_timeout = '1s' }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        go_on(daemon)
        assert daemon.state("a") == "starting"
        for command in (["restart", "--no-wait", "a"], ["apply"]):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        go_on(daemon)
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        wait_until(lambda: daemon.state("a") in ("stopping", "stopped"), "the stop")
    daemon.wait_state("a", "stopped")


@pytest.mark.skipif(not automount.is_possible(), reason="needs autofs")
def test_an_automounter_behind_a_link_of_a_user_keeps_nobody_waiting(spawnd: Start, folder: Path) -> None:
    app = folder / "app"
    app.mkdir()
    os.chown(app, NOBODY.pw_uid, NOBODY.pw_gid)
    with automount.unanswering() as mounted:
        (app / "current").symlink_to(mounted)
        os.lchown(app / "current", NOBODY.pw_uid, NOBODY.pw_gid)
        key = f'user = "nobody", stdin = file("{app}/current/input", "r")'
        daemon = spawnd(f"a = {{ {SLEEP.replace(ROOT, key)}, stop_timeout = '1s' }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        go_on(daemon)
        assert daemon.state("a") == "starting"
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        wait_until(lambda: daemon.state("a") in ("stopping", "stopped"), "the stop")
    daemon.wait_state("a", "stopped")


def test_a_run_time_folder_that_may_hang_is_refused(folder: Path) -> None:
    with fuse.unanswering(fuse.LOOKUP) as path:
        daemon = Daemon(folder, "")
        daemon.runtime = Path(path) / "run"
        done = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=HELD_UP, check=False)
    cause = "its file system has a server that may never answer; --runtime-dir takes a local one"
    assert f"cannot use run-time directory '{path}/run': {cause}" in done.stderr
    assert done.returncode == 1
