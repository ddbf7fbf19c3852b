"""Clients that wait on a socket which is gone from its path: the process that has it takes them before a restart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_loss_states import STUBBORN

Program = Callable[[str, str], str]
HINT = "correct that, then run `spawnctl restart s`"

# Serves on descriptor 3 with its pid, once a file is there or another socket with the same path listens: spawnd waits
# a second for that, which a test on a busy machine may need to notice it.
SLOW = f"""#!{sys.executable} -IS
import os, socket, sys, time
LISTENS = "00010000"  # __SO_ACCEPTCON of <linux/net.h>
listener = socket.socket(fileno=3)

def listeners():
    rows = [row.split() for row in open("/proc/net/unix")]
    return sum(row[3] == LISTENS and row[-1] == listener.getsockname() for row in rows)

while not os.path.exists(sys.argv[1]) and listeners() < 2:
    time.sleep(0.01)
while True:
    client, _ = listener.accept()
    client.sendall(b"%d" % os.getpid())
    client.close()
"""
DEAF = 's = { exec = "/bin/sleep", arg = { "100000" }, restart_signal = "RTMIN+3", fd = { stream("@/sock") } }'


@pytest.fixture
def slow(spawnd: Start, folder: Path, program: Program) -> Daemon:
    path = program("slow", SLOW)
    daemon = spawnd(
        f's = {{ exec = "{path}", arg = {{ "@/out/go" }}, restart_signal = "RTMIN+3", fd = {{ stream("@/sock") }} }}'
    )
    daemon.wait_running("s")
    return daemon


@contextlib.contextmanager
def clients(path: Path, number: int) -> Iterator[list[socket.socket]]:
    """Clients that are connected, and wait."""
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(number)]
        for client in waiting:
            client.settimeout(60)
            client.connect(str(path))
        yield waiting


def answer(client: socket.socket) -> int:
    return int(client.recv(100))


def ask(path: Path) -> int:
    """The pid of the process that serves there."""
    with clients(path, 1) as (client,):
        return answer(client)


def is_disconnected(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):  # a client that was looked at and closed hears the end instead
        return client.recv(1) == b""
    return True


def details(daemon: Daemon) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(daemon.ctl("status", "s", "--json").stdout)[0]
    return row


def restart(daemon: Daemon) -> None:
    assert daemon.ctl("restart", "s", "--no-wait").returncode == 0


def hang_up(daemon: Daemon) -> None:
    daemon.signal(signal.SIGHUP)


def send_restart_signal(daemon: Daemon) -> None:
    daemon.signal(signal.SIGRTMIN + 3)


ORDERS = [restart, hang_up, send_restart_signal]


def unlink(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def leave_stale(path: Path) -> None:
    """A socket file that nobody serves any more."""
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lose", [unlink, rename, leave_stale])
def test_the_process_that_has_the_old_socket_serves_who_waits_there(
    slow: Daemon, folder: Path, order: Callable[[Daemon], None], lose: Callable[[Path], None]
) -> None:
    pid = slow.wait_running("s")
    with clients(folder / "sock", 3) as waiting:
        lose(folder / "sock")
        order(slow)
        assert {answer(client) for client in waiting} == {pid}
        (folder / "out/go").touch()
    assert ask(folder / "sock") == slow.wait_pid("s", other_than=pid)
    assert details(slow)["disconnected"] == ""


def test_clients_that_the_process_does_not_take_are_counted(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(DEAF)
    pid = daemon.wait_running("s")
    with clients(folder / "sock", 2) as waiting:
        (folder / "sock").unlink()
        assert daemon.ctl("restart", "s").returncode == 0
        assert daemon.wait_running("s") != pid
        assert all(is_disconnected(client) for client in waiting)
    who = f"2 clients of stream {folder}/sock"
    daemon.wait_log(f"s: disconnected with the old socket: {who}")
    assert f"Disconnected: {who}" in daemon.ctl("status", "s").stdout
    assert daemon.ctl("reexec").returncode == 0
    assert details(daemon)["disconnected"] == who
    assert daemon.ctl("stop", "s").returncode == 0
    assert details(daemon)["disconnected"] == ""


def test_clients_of_a_process_that_dies_are_counted(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(DEAF)
    pid = daemon.wait_running("s")
    with clients(folder / "sock", 1) as (client,):
        (folder / "sock").unlink()
        os.kill(pid, signal.SIGKILL)
        daemon.wait_log(f"s: disconnected with the old socket: 1 client of stream {folder}/sock")
        assert is_disconnected(client)
    daemon.wait_running("s", other_than=pid)


def test_clients_of_a_socket_that_is_at_its_path_wait_for_the_next_process(slow: Daemon, folder: Path) -> None:
    pid = slow.wait_running("s")
    with clients(folder / "sock", 1) as (client,):
        assert slow.ctl("restart", "s").returncode == 0
        (folder / "out/go").touch()
        assert answer(client) == slow.wait_running("s") != pid


def test_a_stop_waits_for_no_client(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(DEAF)
    daemon.wait_running("s")
    with clients(folder / "sock", 1) as (client,):
        (folder / "sock").unlink()
        restart(daemon)
        assert daemon.ctl("stop", "s").returncode == 0
        assert is_disconnected(client)
    assert daemon.state("s") == "stopped"
    assert not (folder / "sock").exists()


@pytest.mark.parametrize("order", ORDERS)
def test_a_restart_that_waits_for_clients_is_not_lost_over_an_exec(
    spawnd: Start, folder: Path, order: Callable[[Daemon], None]
) -> None:
    daemon = spawnd(DEAF)
    pid = daemon.wait_running("s")
    with clients(folder / "sock", 1) as (client,):
        (folder / "sock").unlink()
        daemon.signal(signal.SIGUSR1)
        daemon.wait_log("before it is executed")  # its trial takes about as long as the restart waits
        order(daemon)
        daemon.wait_log("executed anew, with")
        daemon.wait_running("s", other_than=pid)
        assert is_disconnected(client)
    with clients(folder / "sock", 1):
        assert details(daemon)["starts"] == 2


@pytest.mark.parametrize("order", ORDERS)
def test_a_restart_that_waits_for_clients_is_not_lost_with_spawnd(
    spawnd: Start, folder: Path, order: Callable[[Daemon], None]
) -> None:
    daemon = spawnd(DEAF)
    pid = daemon.wait_running("s")
    with clients(folder / "sock", 1) as (client,):
        (folder / "sock").unlink()
        order(daemon)
        wait_until((folder / "sock").exists, "the new socket")
        daemon.lose()
        daemon.again()
        daemon.wait_running("s", other_than=pid)
        assert is_disconnected(client)
    with clients(folder / "sock", 1):
        assert daemon.state("s") == "running"


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def put_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("lose", [move_folder, put_link, put_folder])
def test_nothing_makes_way_where_no_socket_can_be_bound(
    spawnd: Start, folder: Path, lose: Callable[[Path], None]
) -> None:
    (folder / "d").mkdir()
    daemon = spawnd('s = { exec = "/bin/sleep", arg = { "100000" }, fd = { stream("@/d/sock") } }')
    pid = daemon.wait_running("s")
    lose(folder / "d/sock")
    assert daemon.ctl("apply").returncode == 0
    daemon.wait_log("; the old socket stays")
    assert "; the old socket stays" in details(daemon)["reason"]
    daemon.lose()
    daemon.again()
    assert daemon.ctl("apply").returncode == 0
    assert daemon.wait_running("s") == pid
    assert daemon.ctl("restart", "s").returncode == 0
    assert daemon.wait_running("s") != pid
    daemon.wait_log("and stays as it was: cannot bind")
    assert "and stays as it was: cannot bind" in details(daemon)["reason"]


def test_a_socket_that_cannot_be_reached_is_told_until_it_can(spawnd: Start, folder: Path) -> None:
    (folder / "d").mkdir()
    daemon = spawnd('s = { exec = "/bin/sleep", arg = { "100000" }, fd = { stream("@/d/sock") } }')
    pid = daemon.wait_running("s")
    move_folder(folder / "d/sock")
    os.kill(pid, signal.SIGKILL)
    pid = daemon.wait_running("s", other_than=pid)
    said = f"stream '{folder}/d/sock' was deleted with its directory and stays as it was: cannot bind stream"

    def tells() -> bool:
        why = " ".join(daemon.ctl("why", "s").stdout.split())
        return all((said in " ".join(daemon.ctl("status", "s").stdout.split()), said in why, HINT in why))

    assert tells()
    assert daemon.ctl("reexec").returncode == 0
    assert tells()
    daemon.lose()
    daemon.again()
    daemon.wait_running("s")
    assert tells()
    (folder / "d").mkdir()
    assert daemon.ctl("restart", "s").returncode == 0
    daemon.wait_running("s", other_than=pid)
    assert (folder / "d/sock").exists()
    assert said not in " ".join(daemon.ctl("status", "s").stdout.split())
    assert "stays as it was" not in daemon.ctl("why", "s").stdout


def test_services_are_found_after_a_loss_although_somebody_has_removed_the_state(spawnd: Start) -> None:
    daemon = spawnd('s = { exec = "/bin/sleep", arg = { "100000" } }')
    pid = daemon.wait_running("s")
    (daemon.runtime / "state").unlink()
    daemon.wait_log("was removed or replaced: written anew")
    daemon.lose()
    daemon.again()
    assert daemon.wait_running("s") == pid


def test_nothing_is_watched_while_everything_is_being_stopped(spawnd: Start, program: Program, folder: Path) -> None:
    """The close of an inotify descriptor with watches waits for the kernel, so these are freed first."""
    stubborn = program("stubborn", STUBBORN)
    daemon = spawnd(f's = {{ exec = "{stubborn}", arg = {{ "@/out" }}, env = {{ PATH = "/usr/bin:/bin" }} }}')
    daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    assert watches(daemon.pid)
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: not watches(daemon.pid), "the end of the watches")
    assert daemon.state("s") == "stopping"
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(60) == 0


def watches(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += [line for line in path.read_text().splitlines() if line.startswith("inotify ")]
    return found


READY = f"""#!{sys.executable} -IS
import os, signal, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""


def remove_folder(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize("lose", [unlink, put_folder, leave_stale, remove_folder])
def test_the_next_process_reaches_a_notification_socket_that_was_removed(
    spawnd: Start, program: Program, lose: Callable[[Path], None]
) -> None:
    path = program("ready", READY)
    daemon = spawnd(f's = {{ exec = "{path}", ready = "notify" }}')
    pid = daemon.wait_running("s")
    (notify,) = (daemon.runtime / "notify").glob("*/s")
    lose(notify)
    assert daemon.ctl("restart", "s", "--timeout", "60").returncode == (1 if lose is put_folder else 0)
    if lose is put_folder:  # left alone, as it may be somebody's
        notify.rmdir()
        assert daemon.ctl("start", "s").returncode == 0
    assert daemon.wait_running("s") != pid
