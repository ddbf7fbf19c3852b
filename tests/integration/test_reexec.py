"""Becoming the installed version: the same process with all that it had, and nobody notices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests.bench.measure import pss_kb
from tests.daemon import BIN, Daemon, children, command_name, encode_call, process_state, receive, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, links
from tests.integration.test_life import NOTIFY, SLEEP
from tests.integration.test_log import log_worker
from tests.integration.test_loss import ANSWERS, QUICK, STORES, ask
from tests.integration.test_loss_states import FORKS, STUBBORN
from tests.integration.test_reload_edges import ENV, tcp
from tests.integration.versions import install, installed
from tests.ports import free_port

Program = Callable[[str, str], str]
# stops when somebody says so in its folder
OBSTINATE = """#!/bin/sh
trap '' TERM
: > $1/trapped-$$
: > $1/trapped
while ! test -e $1/end-$$; do sleep 0.05; done
"""


def reexec(daemon: Daemon) -> None:
    """Over the control socket; the answer comes from the next version."""
    result = daemon.ctl("reexec")
    assert result.returncode == 0, result.stderr
    assert f"pid {daemon.pid}" in result.stdout


def opened(pid: int) -> list[str]:
    """Return the open descriptors of a process, without those that each program makes for itself."""
    own = ("anon_inode:", "pipe:", "/dev/")
    return sorted(link for link in links(pid).values() if not link.startswith(own))


def background(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    """A `spawnctl` that waits."""
    command = [str(BIN / "spawnctl"), "--socket", str(daemon.socket), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends_well(ctl: subprocess.Popen[str]) -> None:
    output, errors = ctl.communicate(timeout=60)
    assert ctl.returncode == 0, output + errors


def connect(daemon: Daemon) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(str(daemon.socket))
    return client


# nobody notices


def test_everything_stays_as_it_is(spawnd: Start, folder: Path, program: Program) -> None:
    (folder / "file").touch()
    notifies = program("notifies", NOTIFY + 'say("READY=1\\nSTATUS=fine")\ntime.sleep(100000)\n')
    daemon = spawnd(
        f"""
        a = {{ {SLEEP}, {QUICK}, fd = {{ tcp("127.0.0.1", 0), udp("127.0.0.1", 0), stream("@/socket"),
               file("@/file", "r+") }}, stdin = file("@/file", "r"), stdout = file("@/out/a", "a") }}
        b = {{ {SLEEP}, control = true }}
        c = {{ {SLEEP}, status = "stop" }}
        d = {{ exec = "{notifies}", ready = "notify" }}
        """
    )
    pids = {name: daemon.wait_running(name) for name in "abd"}
    before, rows = opened(daemon.pid), daemon.services()
    fds = links(pids["a"])
    for _ in range(3):
        reexec(daemon)
        after = daemon.services()
        for name in "abcd":
            same = ("state", "pid", "restarts", "reason", "description")
            assert [after[name][key] for key in same] == [rows[name][key] for key in same]
            assert after[name]["since"][:17] == rows[name]["since"][:17]
        wait_until(lambda: opened(daemon.pid) == before, "the same descriptors, with the state file")
    assert "fine" in daemon.ctl("status", "d").stdout
    os.kill(pids["a"], signal.SIGKILL)
    second = daemon.wait_running("a", other_than=pids["a"])
    assert links(second) == fds
    assert "a: killed by KILL" in daemon.log(), "it was its child all the time"
    assert daemon.stop() == 0
    assert not any(map(alive, [*pids.values(), second]))
    assert not (daemon.runtime / "state").exists()


def test_usr1_does_it_too(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    daemon.signal(signal.SIGUSR1)
    daemon.wait_log("executed anew, with 1 service")
    assert daemon.pid_of("a") == pid


def test_clients_of_services_are_answered_all_the_time(spawnd: Start, program: Program) -> None:
    port = free_port()
    daemon = spawnd(f's = {{ exec = "{program("answers", ANSWERS)}", {tcp(port)}, {QUICK} }}')
    pid = daemon.wait_running("s")
    ctl = background(daemon, "reexec")
    while ctl.poll() is None:
        assert ask(port) == pid
    ends_well(ctl)
    assert ask(port) == pid


def test_stored_descriptors_stay(spawnd: Start, program: Program, folder: Path) -> None:
    script = program("stores", STORES)
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, ready = "notify", fdstore_max = 9 }}')
    daemon.wait_running("s")
    stored = daemon.ctl("fds", "s").stdout
    reexec(daemon)
    assert daemon.ctl("fds", "s").stdout == stored
    assert daemon.ctl("restart", "s").returncode == 0
    seen = json.loads((folder / "out" / "seen").read_text())
    assert seen["names"] == ["r", "w", "memory", "event", "process", "one", "other", "file"]
    assert (seen["pipe"], seen["memory"], seen["event"]) == ("in the pipe", "in memory", 7)


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_the_log_worker_stays_and_hears_of_new_services(spawnd: Start, program: Program) -> None:
    script = program("counts", "#!/bin/sh\nn=0\nwhile :; do n=$((n+1)); echo line $n; sleep 0.01; done\n")
    new = program("says", "#!/bin/sh\necho new\nexec sleep 100000\n")
    text = f's = {{ exec = "{script}", {ENV}, stdout = log() }}'
    daemon = spawnd(text)
    daemon.wait_log("s: line 5\n")
    worker = log_worker(daemon)["pid"]
    reexec(daemon)
    assert log_worker(daemon)["pid"] == worker
    daemon.definitions.write_text(f'{text}\nt = {{ exec = "{new}", {ENV}, stdout = log() }}')
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("t: new")
    wait_until(lambda: daemon.ctl("logs", "t").stdout == "new\n", "its output, which is kept after it is logged")
    numbers = [int(line.split()[1]) for line in daemon.ctl("logs", "s", "-n", "100000").stdout.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_many_times_leave_nothing_behind(spawnd: Start, program: Program) -> None:
    daemon = spawnd(
        f'a = {{ {SLEEP}, {tcp(free_port())} }}\nb = {{ exec = "{program("forks", FORKS)}", {ENV}, stdout = log() }}\n'
        f'c = {{ exec = "/bin/false", backoff = {{ first = "1h", max = "1h" }} }}'
    )
    pids = [daemon.wait_running(name) for name in "ab"]
    daemon.wait_state("c", "backoff")
    reexec(daemon)
    wait_until(lambda: str(daemon.runtime / "state") in links(daemon.pid).values(), "the state to be written")
    first = len(links(daemon.pid)), len(children(daemon.pid)), pss_kb(daemon.pid)
    for _ in range(9):
        reexec(daemon)
    assert [daemon.pid_of(name) for name in "ab"] == pids
    wait_until(lambda: len(links(daemon.pid)) == first[0], "no more descriptors")  # that of the last spawnctl
    wait_until(lambda: len(children(daemon.pid)) == first[1], "no child that holds descriptors for an exec")
    assert "Z" not in [process_state(child) for child in children(daemon.pid)]
    assert pss_kb(daemon.pid) < first[2] * 1.2


# orders that are under way


def test_a_stop_that_waits_is_answered(spawnd: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("stubborn", STUBBORN)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "8s"'
    daemon = spawnd(f's = {{ {keys} }}\nt = {{ {SLEEP}, depends = "s" }}')
    pid = daemon.wait_running("s")
    daemon.wait_running("t")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    begun = time.monotonic()
    with background(daemon, "stop", "all") as ctl:
        daemon.wait_log("s: stopping")
        reexec(daemon)
        assert ctl.poll() is None
        ends_well(ctl)
    assert time.monotonic() - begun > 7.9
    assert (daemon.state("s"), daemon.state("t")) == ("stopped", "stopped")
    assert not alive(pid)


def test_stops_in_order_go_on_in_order(spawnd: Start, program: Program, folder: Path) -> None:
    """A service that stops after another one has not been told to stop yet."""
    keys = f'exec = "{program("obstinate", OBSTINATE)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "1m"'
    daemon = spawnd(f'a = {{ {SLEEP} }}\ns = {{ {keys}, depends = "a" }}')
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    with background(daemon, "stop", "all") as ctl:
        daemon.wait_log("s: stopping")
        reexec(daemon)
        assert (daemon.state("s"), daemon.state("a")) == ("stopping", "running")
        (folder / "out" / f"end-{pid}").touch()
        ends_well(ctl)
    assert daemon.log().index("s: stopped") < daemon.log().index("a: stopping")


def test_a_restart_that_waits_is_carried_out_once(spawnd: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("obstinate", OBSTINATE)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "1m"'
    daemon = spawnd(f"s = {{ {keys} }}")
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    with background(daemon, "restart", "s") as ctl:
        daemon.wait_log("s: stopping")
        reexec(daemon)
        reexec(daemon)
        (folder / "out" / f"end-{pid}").touch()
        ends_well(ctl)
    (folder / "out" / f"end-{daemon.pid_of('s')}").touch()
    assert daemon.log().count("Starting s") == 2
    assert daemon.log().count("s: stopping") == 1
    assert daemon.log().count("restart of s: asked for") == 1


def test_a_start_that_waits_is_answered(spawnd: Start, program: Program, folder: Path) -> None:
    script = program("ready", '#!/bin/sh\nwhile ! test -e $1; do sleep 0.02; done\necho >&3\nexec sleep 100000\n')
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out/go" }}, {ENV}, ready = "fd", status = "stop" }}')
    with background(daemon, "start", "s") as ctl:
        pid = daemon.wait_pid("s")
        reexec(daemon)
        assert daemon.state("s") == "starting"
        assert ctl.poll() is None
        (folder / "out" / "go").touch()
        ends_well(ctl)
    assert daemon.pid_of("s") == pid


def test_a_check_that_runs_decides(spawnd: Start, folder: Path) -> None:
    check = 'check = { "/bin/sh", "-c", "while ! test -e @/out/fine; do sleep 0.05; done; echo x >> @/out/checked" }'
    daemon = spawnd(f"s = {{ {SLEEP}, {check}, {ENV} }}")
    pid = daemon.wait_pid("s")
    reexec(daemon)
    assert (daemon.pid_of("s"), daemon.state("s")) == (pid, "starting")
    (folder / "out" / "fine").touch()
    daemon.wait_running("s", other_than=pid)
    assert (folder / "out" / "checked").read_text() == "x\n"


def test_a_wait_between_failures_goes_on(spawnd: Start) -> None:
    keys = 'backoff = { first = "8s", factor = 1, jitter = 0 }, healthy_after = "1m"'
    daemon = spawnd(f's = {{ exec = "/bin/false", {keys} }}')
    daemon.wait_state("s", "backoff")
    waits = time.monotonic()
    reexec(daemon)
    assert daemon.state("s") == "backoff"
    wait_until(lambda: daemon.log().count("s: exited with status 1; failure") == 2, "the second start", pause=0.02)
    assert time.monotonic() - waits > 7
    daemon.wait_log("failure 2")


def test_a_definition_that_waits_comes(spawnd: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("obstinate", OBSTINATE)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "1m"'
    port = free_port()
    daemon = spawnd(f"s = {{ {keys} }}\nr = {{ {keys} }}")
    pids = [daemon.wait_running(name) for name in "sr"]
    wait_until(lambda: all((folder / "out" / f"trapped-{pid}").exists() for pid in pids), "the traps")
    daemon.definitions.write_text(f"s = {{ {SLEEP}, {tcp(port)} }}")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("definitions reloaded")
    reexec(daemon)
    assert daemon.state("s") == "stopping"
    socket.create_connection(("127.0.0.1", port), timeout=60).close()
    for pid in pids:
        (folder / "out" / f"end-{pid}").touch()
    second = daemon.wait_running("s", other_than=pids[0])
    wait_until(lambda: command_name(second) == "sleep", "the new program")
    wait_until(lambda: list(daemon.services()) == ["s"], "the end of the one that was removed")
    assert not any(map(alive, pids))


# control clients


def test_clients_in_the_middle_of_a_call(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_running("a")
    version = encode_call("GetVersion")
    with connect(daemon) as idle, connect(daemon) as half, connect(daemon) as asks:
        half.sendall(version[:9])
        asks.sendall(encode_call("Reexec") + encode_call("List") + version[:20])
        assert receive(asks)["parameters"]["pid"] == daemon.pid
        assert receive(asks)["parameters"]["services"][0]["name"] == "a"
        asks.sendall(version[20:])
        assert "version" in receive(asks)["parameters"]
        half.sendall(version[9:])
        assert "version" in receive(half)["parameters"]
        idle.sendall(version)
        assert "version" in receive(idle)["parameters"]


def test_all_who_asked_are_answered_by_one(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_running("a")
    with connect(daemon) as one, connect(daemon) as other:
        one.sendall(encode_call("Reexec"))
        daemon.wait_log("trying")
        other.sendall(encode_call("Reexec"))
        daemon.signal(signal.SIGUSR1)
        for client in (one, other):
            assert receive(client)["parameters"]["pid"] == daemon.pid
    assert daemon.log().count("executed anew") == daemon.log().count("trying") == 1


def test_many_clients_stay_connected(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_running("a")
    clients = [connect(daemon) for _ in range(200)]
    try:
        wait_until(lambda: len(links(daemon.pid)) > 200, "all to be taken in")
        reexec(daemon)
        for client in clients:
            client.sendall(encode_call("GetVersion"))
        assert all("version" in receive(client)["parameters"] for client in clients)
    finally:
        for client in clients:
            client.close()


# with a loss


def test_survivors_of_a_loss_stay_and_so_do_those_of_an_exec(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLEEP}, {tcp(port)}, {QUICK} }}\nb = {{ {SLEEP}, {QUICK} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    fds = links(pids["a"])
    daemon.lose()
    daemon.again()
    reexec(daemon)
    assert {name: row["pid"] for name, row in daemon.services().items()} == pids
    os.kill(pids["b"], signal.SIGKILL)
    pids["b"] = daemon.wait_running("b", other_than=pids["b"])
    assert "b: ended in an unknown way" in daemon.log()
    daemon.lose()
    daemon.again()
    assert {name: row["pid"] for name, row in daemon.services().items()} == pids
    os.kill(pids["a"], signal.SIGKILL)
    assert links(daemon.wait_running("a", other_than=pids["a"])) == fds
    assert daemon.stop() == 0
    assert not any(map(alive, pids.values()))


@pytest.mark.parametrize("changes", [False, True])
def test_a_loss_before_the_next_program_has_written_the_state(folder: Path, changes: bool) -> None:
    """The file from before the exec is complete; the first change is written at once."""
    with installed(folder, f'a = {{ {SLEEP} }}\nb = {{ {SLEEP}, status = "stop" }}') as daemon:
        pids = {"a": daemon.wait_running("a")}
        install(folder, then="import supervisor.takeover.records as r; r.SOON = 100000")
        before = (daemon.runtime / "state").stat().st_ino
        reexec(daemon)
        if changes:
            assert daemon.ctl("start", "b").returncode == 0
            pids["b"] = daemon.wait_running("b")
        assert ((daemon.runtime / "state").stat().st_ino == before) == (not changes)
        daemon.lose()
        daemon.again()
        assert {name: row["pid"] for name, row in daemon.services().items() if row["pid"]} == pids


def test_the_next_program_writes_the_state_without_a_change(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_running("a")
    before = (daemon.runtime / "state").stat().st_ino
    reexec(daemon)
    wait_until(lambda: (daemon.runtime / "state").stat().st_ino != before, "the state to be written")


def test_the_lock_is_kept(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    reexec(daemon)
    second = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"another supervisor does, pid {daemon.pid}" in second.stderr
    assert daemon.pid_of("a") == pid


# changes of definitions


def test_a_change_that_waits_is_carried_out_once(spawnd: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("obstinate", OBSTINATE)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "1m"'
    daemon = spawnd(f"s = {{ {keys} }}\ng = {{ {SLEEP} }}")
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    daemon.definitions.write_text(f"s = {{ {keys}, nice = 1 }}\nn = {{ {SLEEP} }}".replace("@", str(folder)))
    with background(daemon, "apply", "--json") as ctl:
        daemon.wait_log("s: stopping")
        reexec(daemon)
        assert ctl.poll() is None
        (folder / "out" / f"end-{pid}").touch()
        output, errors = ctl.communicate(timeout=60)
        assert ctl.returncode == 0, errors
    (folder / "out" / f"end-{daemon.wait_pid('s')}").touch()
    rows = {row["name"]: (row["step"], row["ok"], row["state"]) for row in json.loads(output)["services"]}
    assert rows == {
        "s": ("restart", True, "running"),
        "n": ("start", True, "running"),
        "g": ("stop", True, "stopped"),
    }
    assert daemon.log().count("definitions reloaded") == 1
    assert daemon.log().count("apply of the definitions: asked for") == 1
