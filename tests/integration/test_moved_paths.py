"""Files and sockets whose paths lead elsewhere by the time that a service starts again."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, process_state, start_time, wait_until
from tests.integration.conftest import Start

Program = Callable[[str, str], str]

# Reads descriptor 3 and says on a file what is in it, then serves on descriptor 4 with its pid.
SERVER = f"""#!{sys.executable} -IS
import os, socket, sys
with open(sys.argv[1], "a") as out:
    print(os.read(3, 100).decode(), file=out)
listener = socket.socket(fileno=4)
while True:
    client, _ = listener.accept()
    client.sendall(b"%d" % os.getpid())
    client.close()
"""


@pytest.fixture
def server(spawnd: Start, folder: Path, program: Program) -> Daemon:
    (folder / "key").write_text("one")
    path = program("server", SERVER)
    fd = 'fd = { file("@/key"), stream("@/sock") }'
    daemon = spawnd(f's = {{ exec = "{path}", arg = {{ "@/out/said" }}, {fd}, healthy_after = "10ms" }}')
    daemon.wait_running("s")
    wait_until(lambda: said(folder) == ["one"], "the first key")
    return daemon


def said(folder: Path) -> list[str]:
    path = folder / "out/said"
    return path.read_text().split() if path.exists() else []


def ask(path: Path) -> int:
    """The pid of the process that serves there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        return int(client.recv(100))


def rotate(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


def crash(daemon: Daemon, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def restart(daemon: Daemon, pid: int) -> None:
    assert daemon.ctl("restart", "s").returncode == 0


@pytest.mark.parametrize("again", [crash, restart])
def test_a_key_that_was_rotated_is_the_next_process_s(
    server: Daemon, folder: Path, again: Callable[[Daemon, int], None]
) -> None:
    pid = server.wait_running("s")
    rotate(folder / "key", "two")
    again(server, pid)
    server.wait_running("s", other_than=pid)
    wait_until(lambda: said(folder) == ["one", "two"], "the second key")
    server.wait_log(f"s: file '{folder}/key' was replaced: opened anew")
    assert server.services()["s"]["state"] == "running"
    assert "failure" not in server.log()


@pytest.mark.parametrize("again", [crash, restart])
def test_a_socket_file_that_was_removed_is_bound_anew(
    server: Daemon, folder: Path, again: Callable[[Daemon, int], None]
) -> None:
    pid = server.wait_running("s")
    (folder / "sock").unlink()
    again(server, pid)
    new = server.wait_running("s", other_than=pid)
    wait_until((folder / "sock").exists, "the socket")
    assert ask(folder / "sock") == new
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "sock"))
        assert client.getpeername() == str(folder / "sock")


def test_a_file_that_was_removed_stays_the_service_s(server: Daemon, folder: Path) -> None:
    pid = server.wait_running("s")
    (folder / "key").unlink()
    crash(server, pid)
    server.wait_running("s", other_than=pid)
    wait_until(lambda: said(folder) == ["one", "one"], "the key again")
    server.wait_log(f"s: file '{folder}/key' was deleted and stays as it was: ")


def test_a_log_that_was_renamed_is_told_from_one_that_was_deleted(spawnd: Start, folder: Path) -> None:
    streams = 'stdout = file("@/out/log", "a"), stderr = file("@/out/errors", "a")'
    daemon = spawnd(f's = {{ exec = "/bin/sleep", arg = {{ "100000" }}, {streams} }}')
    pid = daemon.wait_running("s")
    (folder / "out/log").rename(folder / "out/log.1")
    (folder / "out/errors").unlink()
    table = daemon.ctl("fds", "s").stdout
    assert "/out/log a (renamed)" in table
    assert "/out/errors a (deleted)" in table
    crash(daemon, pid)
    daemon.wait_log(f"s: file '{folder}/out/log' was renamed: opened anew")
    daemon.wait_log(f"s: file '{folder}/out/errors' was deleted: opened anew")


@contextlib.contextmanager
def taken(path: Path) -> Iterator[socket.socket]:
    """The socket of another server in the place of ours."""
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        yield other


def test_somebody_else_s_socket_is_left_alone(server: Daemon, folder: Path) -> None:
    pid = server.wait_running("s")
    with taken(folder / "sock") as other:
        crash(server, pid)
        server.wait_running("s", other_than=pid)
        server.wait_log("was taken and stays as it was: ")
        assert (folder / "sock").exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "sock"))
            other.accept()[0].close()


WRITER = """#!/bin/sh
echo "$$ starts"
exec sleep 100000
"""


@pytest.mark.parametrize(("access", "lines"), [("a", 2), ("w", 1)])
def test_a_log_that_was_moved_is_opened_anew_and_the_old_one_stays_whole(
    spawnd: Start, folder: Path, program: Program, access: str, lines: int
) -> None:
    path, log = program("writer", WRITER), folder / "out/log"
    daemon = spawnd(f's = {{ exec = "{path}", env = {{ PATH = "/bin" }}, stdout = file("@/out/log", "{access}") }}')
    pid = daemon.wait_running("s")
    wait_until(lambda: log.exists() and log.read_text() == f"{pid} starts\n", "its line")
    log.rename(folder / "out/log.1")
    assert daemon.ctl("restart", "s").returncode == 0
    new = daemon.wait_running("s", other_than=pid)
    wait_until(lambda: log.exists() and log.read_text() == f"{new} starts\n", "the new log")
    assert (folder / "out/log.1").read_text() == f"{pid} starts\n"
    # and without a move: "w" truncates at each start
    assert daemon.ctl("restart", "s").returncode == 0
    last = daemon.wait_running("s", other_than=new)
    wait_until(lambda: log.read_text().endswith(f"{last} starts\n"), "the last line")
    assert len(log.read_text().splitlines()) == lines


def apply(daemon: Daemon) -> None:
    result = daemon.ctl("apply")
    assert result.returncode == 0, result.stderr


def hang_up(daemon: Daemon) -> None:
    daemon.signal(signal.SIGHUP)


@pytest.mark.parametrize("change", [apply, hang_up])
@pytest.mark.parametrize("what", ["key", "sock"])
def test_a_change_of_definitions_finds_what_is_at_the_paths(
    server: Daemon, folder: Path, change: Callable[[Daemon], None], what: str
) -> None:
    pid = server.wait_running("s")
    if what == "key":
        rotate(folder / "key", "two")
    else:
        (folder / "sock").unlink()
    change(server)
    new = server.wait_running("s", other_than=pid)
    wait_until((folder / "sock").exists, "the socket")
    assert ask(folder / "sock") == new
    assert said(folder) == ["one", "two" if what == "key" else "one"]
    lost = "key was replaced" if what == "key" else "sock was deleted"
    assert f"restarted because {folder}/{lost}" in server.ctl("why", "s").stdout
    plan = server.ctl("plan")
    assert "Nothing to do" in plan.stdout


def test_a_plan_says_what_is_not_at_its_path_and_leaves_it_alone(server: Daemon, folder: Path) -> None:
    server.wait_running("s")
    (folder / "sock").unlink()
    plan = server.ctl("plan").stdout
    assert f"{folder}/sock was deleted" in plan
    assert not (folder / "sock").exists()


def test_a_log_that_was_moved_restarts_nothing(spawnd: Start, folder: Path) -> None:
    daemon = spawnd('s = { exec = "/bin/sleep", arg = { "100000" }, stdout = file("@/out/log", "a") }')
    pid = daemon.wait_running("s")
    (folder / "out/log").rename(folder / "out/log.1")
    apply(daemon)
    assert daemon.wait_running("s") == pid


def test_a_socket_of_others_in_the_place_of_ours_keeps_no_change_back(server: Daemon, folder: Path) -> None:
    pid = server.wait_running("s")
    with taken(folder / "sock"):
        apply(server)
        hang_up(server)
        assert server.wait_running("s") == pid


TICKING = f"""#!{sys.executable} -IS
import os, sys, time
number = 0
while True:
    os.write(1, b"%d\\n" % number)
    number += 1
    time.sleep(0.0005)
"""


def numbers(path: Path) -> list[int]:
    """The numbers in a log, without a line that is being written."""
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.mark.parametrize("access", ["a", "w"])
@pytest.mark.parametrize("is_made", [False, True], ids=["gone", "made anew"])
def test_a_running_service_s_log_begins_anew_and_no_line_is_lost(
    spawnd: Start, folder: Path, program: Program, access: str, is_made: bool
) -> None:
    path, log, old = program("ticking", TICKING), folder / "out/log", folder / "out/log.1"
    daemon = spawnd(f's = {{ exec = "{path}", stdout = file("@/out/log", "{access}") }}')
    pid = daemon.wait_running("s")
    wait_until(lambda: len(numbers(log)) > 20, "lines")
    log.rename(old)
    if is_made:
        log.touch()
        log.chmod(0o604)
    result = daemon.ctl("reopen", "s")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert daemon.wait_running("s") == pid
    wait_until(lambda: len(numbers(log)) > 20, "lines in the new log")
    before, after = numbers(old), numbers(log)
    assert [*before, *after] == list(range(len(before) + len(after)))
    assert log.stat().st_mode & 0o777 == (0o604 if is_made else 0o640)
    assert [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")] == []
    assert "at their paths" in daemon.ctl("reopen", "s").stdout


CLIENT = f"""#!{sys.executable} -IS
import os, time
os.write(3, b"%d" % os.getpid())
while True:
    time.sleep(1000)
"""


def test_a_service_is_connected_to_the_server_that_there_is_now(spawnd: Start, folder: Path, program: Program) -> None:
    def listen() -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{folder}/server")
        server.listen()
        server.settimeout(60)
        return server

    def hears(server: socket.socket, pid: int) -> bool:
        client, _ = server.accept()
        with client:
            return int(client.recv(20)) == pid

    path = program("client", CLIENT)
    with listen() as first:
        daemon = spawnd(f's = {{ exec = "{path}", fd = {{ stream("@/server", "connect") }} }}')
        assert hears(first, daemon.wait_running("s"))
    (folder / "server").unlink()
    with listen() as second:
        assert daemon.ctl("restart", "s").returncode == 0
        assert hears(second, daemon.wait_running("s"))


def test_a_service_goes_on_that_was_held_when_spawnd_and_its_child_were_killed(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(
        's = { exec = "/bin/sleep", arg = { "100000" }, stdout = file("@/out/log", "a") }\n'
        't = { exec = "/bin/sleep", arg = { "100000" } }\n'
    )
    held, stopped = daemon.wait_running("s"), daemon.wait_running("t")
    daemon.lose()
    for pid in (held, stopped):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: process_state(pid) == "T", "a stop")  # type: ignore[misc]
    note = daemon.runtime / "functions" / "held:s"
    note.write_text(json.dumps({"leader": held, "started": start_time(held)}))
    with note.open() as child:
        fcntl.flock(child, fcntl.LOCK_EX)  # it has outlived spawnd
        daemon.again()
        assert daemon.wait_running("s") == held
        result = daemon.ctl("reopen", "s")
        assert process_state(held) == "T", result
    wait_until(lambda: process_state(held) != "T", "it to go on")
    wait_until(lambda: not note.exists(), "the note to be gone")
    assert process_state(stopped) == "T"
    os.kill(stopped, signal.SIGCONT)
    assert "s: goes on: a reopening of its files was killed" in daemon.log()


def test_a_reopen_says_where_it_cannot(spawnd: Start, folder: Path, program: Program) -> None:
    daemon = spawnd(
        's = { exec = "/bin/sleep", arg = { "100000" }, stdout = file("@/out/log", "a") }\n'
        't = { exec = "/bin/sleep", arg = { "100000" } }\n'
    )
    daemon.wait_running("s")
    log = folder / "out/log"
    log.unlink()
    result = daemon.ctl("reopen", "s", "t")
    assert result.returncode == 1
    assert "the file that the process writes to was deleted" in result.stderr + result.stdout
    assert "`spawnctl restart s` opens it anew" in result.stderr + result.stdout
    assert "no file of its table is written to" in result.stderr + result.stdout
    assert daemon.ctl("restart", "s").returncode == 0
    log.rename(folder / "log.1")
    log.write_text("of somebody else\n")
    result = daemon.ctl("reopen", "all")
    assert result.returncode == 1
    assert "it was moved elsewhere" in result.stderr + result.stdout
    assert log.read_text() == "of somebody else\n"


def test_fds_say_what_is_not_at_its_path(server: Daemon, folder: Path) -> None:
    server.wait_running("s")
    rotate(folder / "key", "two")
    (folder / "sock").unlink()
    table = server.ctl("fds", "s").stdout
    assert f"{folder}/key r (replaced)" in table
    assert f"{folder}/sock (deleted)" in table
    restart(server, 0)
    assert "(replaced)" not in server.ctl("fds", "s").stdout


def leave(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    (path.parent / "file").write_text("of a cleaner")
    (path.parent / "file").rename(path)


@pytest.mark.parametrize("lose", [leave, move, replace])
@pytest.mark.parametrize("is_executed_anew", [False, True], ids=["first", "executed anew"])
def test_the_control_socket_is_back_within_a_second(
    spawnd: Start, lose: Callable[[Path], None], is_executed_anew: bool
) -> None:
    daemon = spawnd('s = { exec = "/bin/sleep", arg = { "100000" } }')
    daemon.wait_running("s")
    if is_executed_anew:
        assert daemon.ctl("reexec").returncode == 0
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(daemon.socket))
        lose(daemon.socket)
        daemon.wait_log("bound anew")
        assert daemon.ctl("list").returncode == 0
        early.settimeout(60)
        early.sendall(b'{"method": "io.spawnd.GetVersion"}\0')
        assert b"version" in early.recv(1000)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        assert client.getpeername() == str(daemon.socket)
    if lose is move:
        (daemon.runtime / "elsewhere").unlink()
