"""kill -9 of spawnd: its services do not notice, and the next spawnd goes on with them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests.daemon import Daemon, children, command_name, process_state, start_time, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, dated, links, started, wait_reaped, with_argument
from tests.integration.test_life import NOTIFY, SLEEP
from tests.integration.test_log import log_worker
from tests.integration.test_reload_edges import ENV, tcp
from tests.ports import free_port

Program = Callable[[str, str], str]
QUICK = 'healthy_after = 0, backoff = { first = "50ms" }'
ANSWERS = f"""#!{sys.executable} -IS
import os, socket
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.sendall(str(os.getpid()).encode())
    client.close()
"""


def ask(port: int) -> int:
    """The pid of who answers on a port."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        return int(client.recv(100))


def test_services_live_on_with_all_that_they_have(spawnd: Start, folder: Path) -> None:
    (folder / "file").touch()
    daemon = spawnd(
        f"""
        a = {{ {SLEEP}, {QUICK}, fd = {{ tcp("127.0.0.1", 0), udp("127.0.0.1", 0), stream("@/socket"),
               file("@/file", "r+") }}, stdin = file("@/file", "r"), stdout = file("@/out/a", "a") }}
        b = {{ {SLEEP} }}
        """
    )
    pids = {name: daemon.wait_running(name) for name in "ab"}
    before, rows = links(pids["a"]), daemon.services()
    daemon.lose()
    assert all(map(alive, pids.values()))
    daemon.again()
    after = daemon.services()
    assert {name: row["pid"] for name, row in after.items()} == pids
    assert [after[name]["restarts"] for name in "ab"] == [0, 0]
    assert [after[name]["uptime_s"] >= rows[name]["uptime_s"] for name in "ab"] == [True, True]
    assert "taking over" in daemon.log()
    assert "not got back" not in daemon.log()
    assert set(before.values()) - {"/dev/null"} <= set(links(daemon.pid).values())
    os.kill(pids["a"], signal.SIGKILL)
    second = daemon.wait_running("a", other_than=pids["a"])
    assert links(second) == before, "the same ones, on the same numbers"
    assert "ended in an unknown way" in daemon.log()
    assert daemon.pid_of("b") == pids["b"]


def test_clients_are_answered_all_the_time(spawnd: Start, program: Program) -> None:
    port = free_port()
    daemon = spawnd(f's = {{ exec = "{program("answers", ANSWERS)}", {tcp(port)}, {QUICK} }}')
    pid = daemon.wait_running("s")
    assert ask(port) == pid
    daemon.lose()
    assert ask(port) == pid
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "its stop")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        daemon.again()
        os.kill(pid, signal.SIGKILL)
        successor = daemon.wait_running("s", other_than=pid)
        assert int(client.recv(100)) == successor, "it was in the queue before there was a spawnd"
    assert ask(port) == successor


def test_what_dies_meanwhile_is_started_and_nothing_else(spawnd: Start, program: Program) -> None:
    script = program("forks", "#!/bin/sh\nsleep 424242 &\nexec sleep 100000\n")
    daemon = spawnd(f'a = {{ exec = "{script}", {ENV}, {QUICK} }}\nb = {{ {SLEEP} }}')
    first, other = daemon.wait_running("a"), daemon.wait_running("b")
    wait_until(lambda: len(children(first)) == 1 and command_name(first) == "sleep", "the second process")
    left = children(first)[0]
    wait_until(lambda: dated(daemon) > started(left), "a state that was true when both were there")
    daemon.lose()
    os.kill(first, signal.SIGKILL)
    wait_reaped(first)
    assert alive(left)
    daemon.again()
    second = daemon.wait_running("a", other_than=first)
    assert second != first
    assert not alive(left), "what it left is gone before it starts again"
    assert daemon.pid_of("b") == other
    assert "a: ended in an unknown way while there was no spawnd" in daemon.log()
    assert "2 services, 1 alive" in daemon.log()


PREFORK = f"""#!{sys.executable} -IS
import os, socket, sys, time
listener = socket.socket(fileno=3)
while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.02)
for number in range(2):
    if os.fork() == 0:
        open(f"{{sys.argv[1]}}/{{os.getpid()}}", "w").close()
        while True:
            client, _ = listener.accept()
            client.sendall(b"%d" % os.getppid())
            client.close()
while True: time.sleep(100000)
"""


def test_those_who_answer_for_one_that_died_meanwhile_are_ended(
    spawnd: Start, program: Program, folder: Path
) -> None:
    """They were forked long after spawnd wrote last, and hold the address that the next one needs."""
    port = free_port()
    script = program("preforks", PREFORK)
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, {tcp(port)}, {QUICK} }}')
    first = daemon.wait_running("s")
    written = dated(daemon)
    wait_until(lambda: dated(daemon) > written, "the last that is written")
    (folder / "out" / "go").touch()
    wait_until(lambda: len(children(first)) == 2 and len(list((folder / "out").iterdir())) == 3, "its workers")
    workers = children(first)
    assert all(started(worker) >= dated(daemon) for worker in workers)
    daemon.lose()
    os.kill(first, signal.SIGKILL)
    wait_reaped(first)
    assert all(map(alive, workers))
    daemon.again()
    second = daemon.wait_running("s", other_than=first)
    assert not any(map(alive, workers))
    assert ask(port) == second


def test_the_sockets_of_what_waits_for_its_next_start_are_open(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(
        f's = {{ exec = "/bin/false", {tcp(port)}, backoff = {{ first = "1h", max = "1h" }} }}\nt = {{ {SLEEP} }}'
    )
    daemon.wait_state("s", "backoff")
    daemon.wait_running("t")
    daemon.lose()
    daemon.again()
    assert daemon.state("s") == "backoff"
    socket.create_connection(("127.0.0.1", port), timeout=60).close()


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_what_services_say_is_read_all_the_time(spawnd: Start, program: Program) -> None:
    script = program("counts", "#!/bin/sh\nn=0\nwhile :; do n=$((n+1)); echo line $n; sleep 0.01; done\n")
    daemon = spawnd(f's = {{ exec = "{script}", {ENV}, stdout = log() }}')
    pid = daemon.wait_running("s")
    daemon.wait_log("s: line 5\n")
    worker = log_worker(daemon)["pid"]
    daemon.lose()
    assert alive(worker)
    mark = len(daemon.log())
    wait_until(lambda: daemon.log()[mark:].count("s: line") > 5, "lines with nobody there but the log worker")
    daemon.again()
    wait_until(lambda: log_worker(daemon)["pid"] not in (None, worker), "a log worker that can be told of new streams")
    mark = len(daemon.log())
    wait_until(lambda: daemon.log()[mark:].count("s: line") > 5, "more lines")
    assert daemon.pid_of("s") == pid
    numbers = [int(line.split()[1]) for line in daemon.ctl("logs", "s", "-n", "100000").stdout.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1)), "none is lost, and none comes twice"


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_a_service_can_write_on_where_the_log_worker_is_lost_too(spawnd: Start, program: Program, folder: Path) -> None:
    script = program("waits", "#!/bin/sh\nwhile ! test -e $1/go; do sleep 0.02; done\necho again\nexec sleep 100000\n")
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, {ENV}, stdout = log() }}')
    pid, worker = daemon.wait_running("s"), log_worker(daemon)["pid"]
    daemon.lose()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not alive(worker), "its end")
    daemon.again()
    (folder / "out" / "go").touch()
    daemon.wait_log("s: again")
    assert daemon.ctl("logs", "s").stdout == "again\n"
    assert daemon.pid_of("s") == pid


STORES = (
    NOTIFY
    + """
import array, json
def store(name, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        s.sendmsg([f"FDSTORE=1\\nFDNAME={name}\\nFDPOLL=0".encode()], rights)
names = os.environ.get("LISTEN_FDNAMES", "").split(":")
if names == [""]:
    r, w = os.pipe()
    os.write(w, b"in the pipe")
    m = os.memfd_create("mine")
    os.write(m, b"in memory")
    e = os.eventfd(7)
    one, other = socket.socketpair()
    one.send(b"in the socket")
    for name, fd in dict(r=r, w=w, memory=m, event=e, process=os.pidfd_open(os.getpid()), one=one.fileno(),
                         other=other.fileno(), file=os.open(sys.argv[0], os.O_RDONLY)).items():
        store(name, fd)
else:
    fds = dict(zip(names, range(3, 99)))
    with open(sys.argv[1] + "/seen", "w") as file:
        json.dump({
            "names": names, "pipe": os.read(fds["r"], 99).decode(), "memory": os.pread(fds["memory"], 99, 0).decode(),
            "event": os.eventfd_read(fds["event"]), "socket": socket.socket(fileno=fds["other"]).recv(99).decode(),
            "process": open(f"/proc/self/fdinfo/{fds['process']}").read().split("Pid:")[1].split()[0],
            "file": os.pread(fds["file"], 2, 0).decode(), "writes": os.write(fds["w"], b"x"),
        }, file)
        os.fchmod(file.fileno(), 0o644)
say("READY=1")
time.sleep(100000)
"""
)


def test_stored_descriptors_are_handed_to_the_next_process(spawnd: Start, program: Program, folder: Path) -> None:
    script = program("stores", STORES)
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, ready = "notify", fdstore_max = 9 }}')
    daemon.wait_state("s", "running")
    pid = daemon.pid_of("s")
    stored = daemon.ctl("fds", "s").stdout
    daemon.lose()
    daemon.again()
    assert "lost" not in daemon.log()
    assert daemon.pid_of("s") == pid
    assert daemon.ctl("fds", "s").stdout == stored
    assert daemon.ctl("restart", "s").returncode == 0
    seen = json.loads((folder / "out" / "seen").read_text())
    assert seen.pop("process") in (str(pid), "-1"), "the first one, which has ended by now"
    assert seen == {
        "names": ["r", "w", "memory", "event", "process", "one", "other", "file"],
        "pipe": "in the pipe",
        "memory": "in memory",
        "event": 7,
        "socket": "in the socket",
        "file": "#!",
        "writes": 1,
    }


def test_control_sockets_stay_bound(spawnd: Start, program: Program, folder: Path) -> None:
    daemon = spawnd(f's = {{ exec = "{program("answers", ANSWERS)}", control = true, {QUICK} }}')
    pid = daemon.wait_running("s")
    path = folder / "run" / "control.d" / "s"
    inode = path.stat().st_ino

    def ask_control() -> int:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            return int(client.recv(100))

    daemon.lose()
    assert ask_control() == pid
    daemon.again()
    assert ask_control() == pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "its end")
    assert ask_control() == daemon.wait_running("s", other_than=pid)
    assert path.stat().st_ino == inode
    assert daemon.ctl("stop", "s").returncode == 0
    assert not path.exists()


def test_the_operator_has_survivors_in_hand(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\nc = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "abc"}
    daemon.lose()
    daemon.again()
    assert daemon.ctl("restart", "a").returncode == 0
    assert daemon.pid_of("a") not in (None, pids["a"])
    assert daemon.ctl("stop", "b").returncode == 0
    assert not alive(pids["b"])
    assert daemon.ctl("signal", "KILL", "c").returncode == 0
    daemon.wait_running("c", other_than=pids["c"])
    assert not any(map(alive, pids.values()))


def test_an_end_in_order_ends_survivors_too(spawnd: Start, program: Program) -> None:
    stubborn = program("stubborn", "#!/bin/sh\ntrap '' TERM\n: > $1/trapped\nwhile :; do sleep 0.05; done\n")
    more = f'{ENV}, stop_timeout = "200ms"'
    daemon = spawnd(f'a = {{ {SLEEP} }}\nb = {{ exec = "{stubborn}", arg = {{ "@/out" }}, {more} }}')
    pids = [daemon.wait_running(name) for name in "ab"]
    wait_until((daemon.folder / "out" / "trapped").exists, "the trap")
    daemon.lose()
    daemon.again()
    assert daemon.stop() == 0
    assert not any(map(alive, pids))
    assert not (daemon.runtime / "state").exists(), "there is nothing to go on with"
    daemon.again()
    assert "taking over" not in daemon.log().rpartition("all services have stopped")[2]


def test_what_is_said_to_the_next_spawnd_is_heard(spawnd: Start, program: Program, folder: Path) -> None:
    script = program(
        "feeds",
        NOTIFY
        + """
say("READY=1\\nSTATUS=before")
while not os.path.exists(sys.argv[1] + "/silent"):
    try:
        say("WATCHDOG=1" + ("\\nSTATUS=after" if os.path.exists(sys.argv[1] + "/after") else ""))
    except OSError:
        pass
    time.sleep(0.05)
time.sleep(100000)
""",
    )
    keys = f'ready = "notify", watchdog = "3s", {QUICK}'
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, {keys} }}')
    pid = daemon.wait_running("s")
    daemon.lose()
    (folder / "out" / "after").touch()
    daemon.again()
    assert daemon.pid_of("s") == pid
    wait_until(lambda: "after" in daemon.ctl("status", "s").stdout, "its word")
    wait_until(lambda: daemon.services()["s"]["uptime_s"] > 4, "longer than its watchdog")
    assert daemon.pid_of("s") == pid
    (folder / "out" / "silent").touch()
    daemon.wait_log("watchdog missed")
    (folder / "out" / "silent").unlink()
    daemon.wait_running("s", other_than=pid)


def test_twice_lost(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLEEP}, {tcp(port)}, {QUICK} }}\nb = {{ {SLEEP}, {QUICK} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    before = links(pids["a"])
    for _ in range(3):
        daemon.lose()
        daemon.again()
        os.kill(pids["b"], signal.SIGKILL)
        pids["b"] = daemon.wait_running("b", other_than=pids["b"])
        assert daemon.pid_of("a") == pids["a"]
    os.kill(pids["a"], signal.SIGKILL)
    assert links(daemon.wait_running("a", other_than=pids["a"])) == before
    opened = len(links(daemon.pid))
    daemon.lose()
    daemon.again()
    daemon.ctl("list")
    wait_until(lambda: len(links(daemon.pid)) <= opened + 2, "no more descriptors: a pidfd for each survivor")


def test_a_second_spawnd_is_refused_by_the_one_that_took_over(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    daemon.lose()
    daemon.again()
    state = (daemon.runtime / "state").read_bytes()
    second = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"another supervisor does, pid {daemon.pid}" in second.stderr
    assert (daemon.runtime / "state").read_bytes().startswith(state)  # the date may have been added
    assert daemon.pid_of("a") == pid


def test_whenever_it_is_killed_nothing_runs_twice(spawnd: Start, folder: Path) -> None:
    """While twenty services start, crash and stop."""
    names = [f"s{number}" for number in range(20)]
    marks = {name: f"@/mark-{name}" for name in names}
    text = "".join(
        f'{name} = {{ exec = "/bin/sh", arg = {{ "-c", "sleep 0.{number % 7}; exec sleep 100000", "{marks[name]}" }}, '
        f"{ENV}, {QUICK}, start_limit = false }}\n"
        for number, name in enumerate(names)
    )
    daemon = spawnd(text)
    for number in range(12):
        time.sleep(0.03 * number)  # at another moment each time: the moment is what is tested
        for name in names[number::5]:
            for pid in with_argument(marks[name].replace("@", str(folder))):
                os.kill(pid, signal.SIGKILL)
        daemon.lose()
        daemon.again()
    for name in names:
        daemon.wait_state(name, "running")
    pids = {name: row["pid"] for name, row in daemon.services().items()}
    assert len(set(pids.values())) == len(names)
    for name in names:
        own = with_argument(marks[name].replace("@", str(folder)))
        assert own in ([pids[name]], []), "a shell that has not become sleep yet, or nobody"
    sleeping = [pid for pid in _all_below(daemon) if command_name(pid) == "sleep" and b"100000" in _arguments(pid)]
    assert sorted(sleeping) == sorted(pids.values())


def _all_below(daemon: Daemon) -> list[int]:
    """Return the processes that this spawnd has started, and those that lost ones have left."""
    return sorted({*children(daemon.pid), *daemon.survivors()})


def _arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if start_time(pid) is not None else []
