"""The run-time folder is removed underneath spawnd, as a whole or in part."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.process.sockets import is_bound
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start

Program = Callable[[str, str], str]

# Says at each USR1 how often it has come; READY=1 first.
SAYING = f"""#!{sys.executable} -IS
import itertools, os, signal, socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    try:
        sock.sendto(text, os.environ["NOTIFY_SOCKET"])
    except OSError:
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
say(b"READY=1")
for count in itertools.count(1):
    signal.sigwait([signal.SIGUSR1])
    say(b"STATUS=told %d times" % count)
"""


@pytest.fixture
def daemon(spawnd: Start, program: Program) -> Daemon:
    path = program("saying", SAYING)
    return spawnd(f's = {{ exec = "{path}", ready = "notify" }}\nt = {{ exec = "/bin/sleep", arg = {{ "100000" }} }}')


def remove(daemon: Daemon, *names: str) -> None:
    for name in names:
        shutil.rmtree(daemon.runtime / name)


def move_away(daemon: Daemon, *_names: str) -> None:
    """At once, so that nothing is made in it again meanwhile."""
    gone = daemon.runtime.with_name("gone")
    daemon.runtime.rename(gone)
    shutil.rmtree(gone)


@pytest.mark.parametrize(
    ("how", "names"), [(move_away, ()), (remove, ("notify", "control.d", "functions"))], ids=["whole", "part"]
)
def test_what_was_in_it_is_there_again(daemon: Daemon, how: Callable[..., None], names: tuple[str, ...]) -> None:
    pids = [daemon.wait_running(name) for name in ("s", "t")]
    how(daemon, *names)
    wait_until(lambda: "made again" in daemon.log(), "the folder")
    wait_until(daemon.answers, "an answer on the control socket")
    wait_until(lambda: "notification socket was not at its path" in daemon.log(), "the notification socket")

    def is_heard() -> bool:
        os.kill(pids[0], signal.SIGUSR1)
        return "told" in daemon.ctl("status", "s").stdout

    wait_until(is_heard, "a status")
    wait_until(lambda: (daemon.runtime / "state").exists(), "the state")
    assert int((daemon.runtime / "pid").read_text()) == daemon.pid
    assert [daemon.wait_running(name) for name in ("s", "t")] == pids
    daemon.lose()
    daemon.again()
    assert [daemon.wait_running(name) for name in ("s", "t")] == pids


def test_twice(daemon: Daemon) -> None:
    daemon.wait_running("s")
    for count in (1, 2):
        move_away(daemon)
        wait_until(lambda count=count: daemon.log().count("made again") == count, "the folder")  # type: ignore[misc]
        wait_until(daemon.answers, "an answer on the control socket")


def test_it_is_not_made_where_its_own_folder_is_gone(daemon: Daemon) -> None:
    daemon.wait_running("s")
    folder = daemon.runtime.parent
    away = folder.with_name(f"{folder.name}-away")
    folder.rename(away)
    try:
        (away / "run").rename(away / "gone")
        wait_until(lambda: "restart spawnd" in (away / "log").read_text(), "the error")
        assert not folder.exists()
        (away / "gone").rename(away / "run")
    finally:
        away.rename(folder)


def test_a_removed_notification_socket_is_bound_again_while_the_service_runs(daemon: Daemon) -> None:
    pid = daemon.wait_running("s")
    (notify,) = (daemon.runtime / "notify").iterdir()
    shutil.rmtree(notify)
    daemon.wait_log("notification socket was not at its path")

    def is_heard() -> bool:
        os.kill(pid, signal.SIGUSR1)
        return "told" in daemon.ctl("status", "s").stdout

    wait_until(is_heard, "a status")
    assert daemon.ctl("stop", "s").returncode == 0
    assert list((daemon.runtime / "notify").iterdir()) == []


def test_status_tells_of_a_removed_control_socket(spawnd: Start) -> None:
    daemon = spawnd('c = { exec = "/bin/sleep", arg = { "100000" }, control = true }')
    daemon.wait_running("c")
    assert "removed" not in daemon.ctl("status", "c").stdout
    (daemon.runtime / "control.d" / "c").unlink()
    assert "its control socket was removed: `spawnctl restart c`" in " ".join(daemon.ctl("status", "c").stdout.split())
    daemon.wait_log("`spawnctl restart c` makes it again")
    assert "c: it was removed; `spawnctl restart c` makes it again" in daemon.ctl("call", "c", "Status").stderr
    assert daemon.ctl("restart", "c").returncode == 0
    assert "removed" not in daemon.ctl("status", "c").stdout


def overflow(daemon: Daemon) -> None:
    """Have the kernel drop the events about the run-time folder that come until spawnd is continued."""
    lengths = Path("/proc/sys/fs/inotify/max_queued_events").read_text()
    for number in range(int(lengths) + 1):
        path = daemon.runtime.with_name(f"flood{number % 2}")  # the kernel merges equal events
        path.touch()
        path.unlink()


CONTROLLED = """
c = { exec = "/bin/sleep", arg = { "100000" }, control = true }
n = { exec = "/bin/sleep", arg = { "100000" }, fdstore_max = 1 }
"""


def sockets_of(daemon: Daemon) -> list[Path]:
    (notify,) = (daemon.runtime / "notify").glob("n.*/s")
    return [notify, daemon.runtime / "control.d" / "c"]


@pytest.mark.parametrize("events_are_lost", [False, True], ids=["noticed", "lost"])
def test_removed_sockets_are_found(spawnd: Start, events_are_lost: bool) -> None:
    daemon = spawnd(CONTROLLED)
    daemon.wait_running("c")
    daemon.wait_running("n")
    sockets = sockets_of(daemon)
    for _ in range(2):
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            if events_are_lost:
                overflow(daemon)
            for path in sockets:
                path.unlink()
            offset = len(daemon.log())
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        wait_until(lambda: is_bound(str(sockets[0])), "the notification socket")
        wait_until(lambda: "`spawnctl restart c` makes it again" in daemon.log()[offset:], "the control socket")  # noqa: B023
        assert daemon.ctl("restart", "c").returncode == 0
        daemon.wait_running("c")


def test_a_socket_that_another_file_replaces_is_bound_again(spawnd: Start) -> None:
    daemon = spawnd(CONTROLLED)
    daemon.wait_running("n")
    (notify, _control) = sockets_of(daemon)
    other = daemon.runtime / "notify" / "other"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(other))
    other.rename(notify)
    wait_until(lambda: is_bound(str(notify)), "the notification socket")
