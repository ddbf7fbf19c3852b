"""Watching services of a real daemon: monitor, logs -f, show, and its end by shutdown."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.following import Following
from tests.integration.test_reload import reload

Program = Callable[[str, str], str]
SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
NO_JOURNAL = pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")


def states_of(monitor: Following, name: str, last: str | None) -> list[str | None]:
    """The states that one service goes through, up to `last`."""
    found: list[str | None] = []
    while not found or found[-1] != last:
        row = monitor.row()
        if row["name"] == name:
            found.append(row["state"])
    return found


def test_monitor(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP}, healthy_after = 0 }}\nb = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    daemon.wait_state("b", "running")
    with Following(daemon, "monitor", "--json") as monitor:
        assert [(row["name"], row["old"], row["state"]) for row in (monitor.row(), monitor.row())] == [
            ("a", None, "running"),
            ("b", None, "running"),
        ]
        os.kill(pid, signal.SIGKILL)
        crash = monitor.row()
        assert (crash["old"], crash["state"], crash["reason"]) == ("running", "waiting", "killed by KILL")
        assert states_of(monitor, "a", "running") == ["starting", "running"]
        assert daemon.ctl("stop", "b").returncode == 0
        assert states_of(monitor, "b", "stopped") == ["stopping", "stopped"]
        reload(daemon, f"a = {{ {SLEEP}, healthy_after = 0 }}\nc = {{ {SLEEP} }}")
        news = [monitor.row() for _ in range(5)]
        assert [(row["old"], row["state"]) for row in news if row["name"] == "b"] == [("stopped", None)]
        assert [row["state"] for row in news if row["name"] == "c"] == ["stopped", "waiting", "starting", "running"]
        reload(daemon, f"c = {{ {SLEEP} }}")
        assert states_of(monitor, "a", None) == ["stopping", None]
        assert daemon.stop() == 0
        states_of(monitor, "c", "stopped")
        assert monitor.line().endswith("closed the connection")
        assert monitor.wait() == 1


def test_a_monitor_wakes_nobody_up(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    with Following(daemon, "monitor", "--json") as monitor:
        assert monitor.row()["state"] == "running"
        wait_until(lambda: not woken(daemon, 1.5), "rest: the last start has settled, and that is written down")
        assert woken(daemon, 1.0) == 0


def woken(daemon: Daemon, seconds: float) -> int:
    """How often spawnd gave up the processor in a time: each wake-up ends with that."""

    def count() -> int:
        lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    before = count()
    time.sleep(seconds)  # the time is what is measured
    return count() - before


def test_a_client_that_never_reads_costs_nobody_anything(spawnd: Start) -> None:
    never = f'never = {{ {SLEEP}, ready = "notify", start_timeout = false }}'
    many = f'for i = 1, 50 do _G["{"s" * 60}" .. i] = {{ {SLEEP}, depends = "never" }} end'
    daemon = spawnd(f"{never}\n{many}")

    def change_often() -> None:
        for _ in range(10):
            assert daemon.ctl("stop", "-q", "s*").returncode == 0
            assert daemon.ctl("start", "-q", "--no-wait", "s*").returncode == 0

    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(str(daemon.socket))
        stuck.sendall(b'{"method": "io.spawnd.Monitor", "more": true}\0')
        change_often()
        before = memory(daemon)
        change_often()
        assert memory(daemon) - before < 1 << 20
        told = read_all(stuck)
        assert sum(change["skipped"] for change in told) > 500, "it was not stuck"
        states = {name: row["state"] for name, row in daemon.services().items()}
        assert {change["name"]: change["state"] for change in told} == states


def read_all(sock: socket.socket) -> list[dict[str, Any]]:
    """All changes that come, until none has come for a while."""
    received = b""
    sock.settimeout(1)
    with suppress(TimeoutError):
        while True:
            received += sock.recv(1 << 20)
    replies = [json.loads(message) for message in received.split(b"\0")[:-1]]
    return [change for reply in replies for change in reply["parameters"]["changes"]]


def memory(daemon: Daemon) -> int:
    """Bytes of its own that spawnd holds."""
    lines = Path(f"/proc/{daemon.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


@NO_JOURNAL
def test_logs_are_followed_over_restarts_to_the_end_of_the_service(spawnd: Start, program: Program) -> None:
    script = program("talks", "#!/bin/sh\necho begin\nread line < $1/fifo\necho $line\n")
    os.mkfifo(Path(script).parent / "fifo", 0o666)
    (Path(script).parent / "fifo").chmod(0o666)
    run = f'exec = "{script}", arg = {{ "@" }}, env = {{ PATH = "/bin:/usr/bin" }}'
    daemon = spawnd(f"s = {{ {run}, stdout = log(), healthy_after = 0 }}\nq = {{ {SLEEP} }}")
    wait_until(lambda: daemon.ctl("logs", "s").stdout == "begin\n", "the first line")
    with Following(daemon, "logs", "-f", "s") as logs:
        assert logs.line() == "begin"
        for word in ("one", "two"):
            (daemon.folder / "fifo").write_text(f"{word}\n")
            assert [logs.line(), logs.line()] == [word, "begin"]
        reload(daemon, f"q = {{ {SLEEP} }}")
        assert logs.line() == "spawnctl: s is not defined any more"
        assert logs.wait() == 4
    with Following(daemon, "logs", "-f", "q") as logs:
        assert logs.line().startswith("spawnctl: q has no log(): ")
        assert logs.wait() == 1


@NO_JOURNAL
def test_following_is_interrupted(spawnd: Start) -> None:
    daemon = spawnd(f"s = {{ {SLEEP}, stdout = log() }}")
    daemon.wait_state("s", "running")
    with Following(daemon, "logs", "--json", "-f", "s") as logs:
        wait_until(lambda: len(connections(daemon)) > 2, "the connection")
        wait_until(lambda: woken(daemon, 0.5) > 0, "spawnd to look for more")
        assert logs.interrupt() in (130, -signal.SIGINT)
    wait_until(lambda: not woken(daemon, 0.5), "spawnd to look no more")


def connections(daemon: Daemon) -> list[str]:
    folder = f"/proc/{daemon.pid}/fd"
    return [entry for entry in os.listdir(folder) if os.readlink(f"{folder}/{entry}").startswith("socket:")]


def test_show(spawnd: Start) -> None:
    defaults = '_DEFAULT = { umask = "022",\n nice = 5 }'
    daemon = spawnd(f'{defaults}\na = {{ {SLEEP},\n env_file = "@/env", control = true }}')
    (daemon.folder / "env").write_text('A="the password"\n')
    assert daemon.ctl("restart", "a").returncode == 0
    where = str(daemon.definitions)
    result = daemon.ctl("show", "a")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["a", "=", "{", "--", f"{where}:3"],
        ["exec", "=", '"/bin/sleep",', "--", f"{where}:3"],
        ["arg", "=", "{", '"100000"', "},", "--", f"{where}:3"],
        ["env_file", "=", "{", f'"{daemon.folder}/env"', "},", "--", f"{where}:4"],
        ["umask", "=", '"----w--w-",', "--", f"{where}:1"],
        ["control", "=", "true,", "--", f"{where}:4"],
        ["nice", "=", "5,", "--", f"{where}:2"],
        ["}"],
    ]
    for arguments in (("show", "-a"), ("show", "--json"), ("why",), ("status",), ("status", "--json")):
        assert "password" not in daemon.ctl(*arguments, "a").stdout
    assert "password" not in daemon.log()


def test_a_definition_that_waits_for_its_turn(spawnd: Start, program: Program) -> None:
    stubborn = program("stubborn", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.05; done\n")
    keys = f'exec = "{stubborn}", env = {{ PATH = "/bin:/usr/bin" }}, stop_timeout = "1h"'
    daemon = spawnd(f"a = {{ {keys} }}")
    pid = daemon.wait_running("a")
    reload(daemon, f'a = {{ {keys.replace("1h", "100ms")}, cwd = "/tmp" }}')
    reply = json.loads(daemon.ctl("show", "a", "--json").stdout)
    assert [(setting["key"], setting["value"]) for setting in reply["pending"]] == [
        ("cwd", '"/tmp"'),
        ("stop_timeout", '"100ms"'),
    ]
    assert "a changed definition waits" in daemon.ctl("show", "a").stdout
    why = json.loads(daemon.ctl("why", "a", "--json").stdout)
    assert (why["kind"], why["chain"][0]["state"]) == ("definition", "stopping")
    os.kill(pid, signal.SIGKILL)
    daemon.wait_running("a", other_than=pid)
    assert json.loads(daemon.ctl("show", "a", "--json").stdout)["pending"] is None


def test_shutdown(spawnd: Start, program: Program) -> None:
    slow = program("slow", "#!/bin/sh\ntrap 'sleep 0.3; exit 0' TERM\nwhile :; do sleep 0.05; done\n")
    daemon = spawnd(f'a = {{ exec = "{slow}", env = {{ PATH = "/bin:/usr/bin" }} }}\nb = {{ {SLEEP} }}')
    pid = daemon.wait_running("a")
    with Following(daemon, "start", "never-mind") as other:
        other.wait()
    result = daemon.ctl("shutdown")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert daemon.process is not None
    assert daemon.process.wait(0) == 0, "it has ended when spawnctl says so"
    assert not Path(f"/proc/{pid}").exists()
    assert "shutdown: asked for by uid" in daemon.log()
    assert daemon.ctl("shutdown").returncode == 6
    # its run-time folder is free at once
    again = Daemon(daemon.folder, f"a = {{ {SLEEP} }}")
    with again:
        again.wait_state("a", "running")


def test_shutdown_twice_and_without_waiting(spawnd: Start, program: Program) -> None:
    stubborn = program("stubborn", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.05; done\n")
    daemon = spawnd(f'a = {{ exec = "{stubborn}", env = {{ PATH = "/bin:/usr/bin" }}, stop_timeout = "1h" }}')
    pid = daemon.wait_running("a")
    for _ in range(2):
        assert daemon.ctl("shutdown", "--no-wait").returncode == 0
    daemon.wait_state("a", "stopping")
    assert json.loads(daemon.ctl("why", "a", "--json").stdout)["kind"] == "shutdown"
    assert not daemon.ended(), "asked again, it does nothing more"
    os.kill(pid, signal.SIGKILL)
    wait_until(daemon.ended, "the end")


def test_a_shutdown_in_a_hurry_is_no_failure_of_anybody(spawnd: Start, program: Program) -> None:
    stubborn = program("stubborn", "#!/bin/sh\ntrap '' TERM\necho up\nwhile :; do sleep 0.05; done\n")
    daemon = spawnd(
        f"""
        first = {{ {SLEEP}, stdout = log() }}
        last = {{ exec = "{stubborn}", env = {{ PATH = "/bin:/usr/bin" }}, stdout = log(), stop_timeout = "1h",
                  depends = "first" }}
        """
    )
    daemon.wait_running("last")
    wait_until(lambda: daemon.ctl("logs", "last").stdout == "up\n", "its trap")
    daemon.signal(signal.SIGINT)
    daemon.wait_state("last", "stopping")
    daemon.signal(signal.SIGINT)
    wait_until(daemon.ended, "the end")
    log = daemon.log()
    assert "told to stop once more" in log
    assert "starting it again" not in log
    assert "next start in" not in log
    assert "first: stopping: shutdown" in log


def test_a_name_that_was_probably_meant(spawnd: Start) -> None:
    daemon = spawnd(f"web = {{ {SLEEP} }}\nqotd = {{ {SLEEP} }}")
    pid = daemon.wait_running("web")
    for verb in ("restart", "stop", "status", "why", "fds"):
        result = daemon.ctl(verb, "wb")
        assert (result.returncode, result.stdout) == (4, "")
        assert result.stderr == "spawnctl: no such service 'wb'; did you mean 'web'?\n"
    assert daemon.ctl("restart", "web", "we*", "q_td").stderr.endswith("'q_td'; did you mean 'qotd'?\n")
    assert daemon.ctl("restart", "wb*").stderr == "spawnctl: no such service 'wb*'\n"
    assert daemon.pid_of("web") == pid


def test_without_a_verb_services_are_listed(spawnd: Start) -> None:
    daemon = spawnd(f"web = {{ {SLEEP} }}")
    daemon.wait_running("web")
    for arguments in ((), ("status",)):
        result = daemon.ctl(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert [line.split()[0] for line in result.stdout.splitlines()] == ["NAME", "web"]
    wrong = daemon.ctl("restrat", "web")
    assert wrong.stderr == "spawnctl: no such verb 'restrat'; did you mean 'restart'?\n"


def test_orders_with_nothing_to_do(spawnd: Start) -> None:
    daemon = spawnd(f'backup = {{ exec = "/bin/true", task = true }}\nweb = {{ {SLEEP} }}')
    daemon.wait_state("backup", "done")
    daemon.wait_running("web")
    assert daemon.ctl("stop", "backup").stdout == "backup: done: there was nothing to stop: it had ended before\n"
    assert daemon.ctl("reload", "all").stdout.startswith("Nothing to reload: ")
    assert daemon.ctl("reload", "web").stderr == "web: running: it has no reload_signal\n"
