"""`why`, of services that do not run for every kind of reason."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests import fuse
from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import module
from tests.integration.test_reload import reload

pytestmark = pytest.mark.lasting

Program = Callable[[str, str], str]
SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
NEVER = 'backoff = { first = "1h", max = "1h" }'  # the next try is after the test


def sh(script: str, more: str = "") -> str:
    return f'exec = "/bin/sh", arg = {{ "-c", [[{script}]] }}, env = {{ PATH = "/bin:/usr/bin" }}, {NEVER}, {more}'


def why(daemon: Daemon, name: str) -> dict[str, Any]:
    result = daemon.ctl("why", name, "--json")
    assert result.returncode == 0, result.stderr
    reply: dict[str, Any] = json.loads(result.stdout)
    return reply


def wait_kind(daemon: Daemon, name: str, kind: str) -> dict[str, Any]:
    """Return the answer of `why` once the root is of this kind."""
    wait_until(lambda: why(daemon, name)["kind"] == kind, f"{name} {kind}")
    return why(daemon, name)


def test_a_program_that_has_written_nothing(spawnd: Start) -> None:
    daemon = spawnd(f"s = {{ {sh('exit 3', 'start_limit = 1, stdout = log(), stderr = log()')} }}")
    daemon.wait_state("s", "failed")
    assert why(daemon, "s")["hint"].startswith("it has written nothing to its `log()`; fix that")
    logs = daemon.ctl("logs", "s")
    assert (logs.returncode, logs.stdout, logs.stderr) == (0, "", "spawnctl: s has written nothing\n")


def test_the_root_is_found_over_dependencies(spawnd: Start) -> None:
    daemon = spawnd(
        f"""
        web = {{ {SLEEP}, depends = "app" }}
        app = {{ {SLEEP}, depends = "db" }}
        db = {{ {sh("exit 3", 'ready = "notify", start_limit = 1')} }}
        """
    )
    reply = wait_kind(daemon, "web", "exit")
    assert reply["root"] == "db"
    assert [(link["name"], link["state"], link["exit_status"]) for link in reply["chain"]] == [
        ("web", "waiting", None),
        ("app", "waiting", None),
        ("db", "failed", 3),
    ]
    lines = daemon.ctl("why", "web").stdout.splitlines()
    assert lines[0] == (
        "web is not running: it needs app, which needs db, which has failed: its process exited with status 3; "
        "given up after 1 failure"
    )
    assert lines[-1] == (
        "To do: its output is not kept: add `stderr = log()`; fix that, then run `spawnctl start db`"
    )


@pytest.mark.skipif(os.path.exists(JOURNAL_SOCKET), reason="this host has a journal")
def test_its_last_words(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {sh('echo no licence; exit 1', 'stdout = log()')} }}")
    wait_until(lambda: why(daemon, "a")["lines"] == ["no licence"], "the last words")
    assert daemon.ctl("why", "a").stdout.endswith("\nThe last lines of a:\n  no licence\n")


@pytest.mark.lasting(False)
def test_failures_of_a_start(spawnd: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = spawnd(
            f"""
            nowhere = {{ {SLEEP}, cwd = "@/nowhere", {NEVER} }}
            nothing = {{ exec = "@/nothing", {NEVER} }}
            nofile = {{ {SLEEP}, fd = {{ file("@/nofile", "r") }}, {NEVER} }}
            taken = {{ {SLEEP}, fd = {{ tcp("127.0.0.1", {port}) }}, {NEVER} }}
            """
        )
        for name, step, path in (("nowhere", "change directory", "nowhere"), ("nothing", "exec", "nothing")):
            reply = wait_kind(daemon, name, "setup")
            link = reply["chain"][0]
            assert (link["step"], link["path"], link["errno"]) == (step, f"{daemon.folder}/{path}", 2)
            assert f"see {daemon.definitions}:" in reply["hint"]
        link = wait_kind(daemon, "nofile", "setup")["chain"][0]
        assert (link["step"], link["path"]) == ("open", f"{daemon.folder}/nofile")
        assert 3000 < link["next_start_s"] < 4000
        reply = wait_kind(daemon, "taken", "address")
        assert f"it could not bind tcp 127.0.0.1:{port}: Address already in use" in reply["answer"]
        assert reply["chain"][0]["other"] is None


def test_a_bad_line_of_a_file_of_variables(spawnd: Start, folder: Path) -> None:
    env = folder / "env"
    env.write_text("A=1\nsecret\n")
    env.chmod(0o600)
    daemon = spawnd(f'a = {{ {SLEEP}, env_file = "{env}", {NEVER} }}')
    assert wait_kind(daemon, "a", "setup")["hint"].startswith(f"correct line 2 of {env}; ")


def test_failures_of_a_process(spawnd: Start) -> None:
    daemon = spawnd(
        f"""
        killed = {{ {sh("kill -SEGV $$")} }}
        late = {{ {SLEEP}, ready = "notify", start_timeout = "100ms", {NEVER} }}
        hangs = {{ {SLEEP}, watchdog = "100ms", healthy_after = "1h", {NEVER} }}
        checked = {{ {SLEEP}, check = {{ "/bin/false" }}, {NEVER} }}
        slow = {{ {SLEEP}, check = {{ "/bin/sleep", "100000" }}, start_timeout = "100ms", {NEVER} }}
        ended = {{ {sh("exit 0", 'restart = "on-failure"')} }}
        task = {{ exec = "/bin/true", task = true }}
        """
    )
    assert wait_kind(daemon, "killed", "signal")["chain"][0]["signal"] == signal.SIGSEGV
    assert "not ready in time (start_timeout is 0.1 s)" in wait_kind(daemon, "late", "not_ready")["answer"]
    assert "missed its watchdog (watchdog is 0.1 s)" in wait_kind(daemon, "hangs", "watchdog")["answer"]
    assert "its check exited with status 1" in wait_kind(daemon, "checked", "check")["answer"]
    wait_until(lambda: "not finished in time" in why(daemon, "slow")["answer"], "the end of the check")
    assert 'restart = "on-failure"' in wait_kind(daemon, "ended", "ended")["answer"]
    assert wait_kind(daemon, "task", "done")["answer"] == "task is done: it is a task, and has ended well"


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_killed_process_that_the_kernel_holds_is_told_of(spawnd: Start, folder: Path) -> None:
    begun = folder / "out" / "begun"
    with fuse.unanswering(fuse.FLUSH) as path:
        script = f"trap '' TERM; : > {begun}; exec 3<>{path}; exec 3>&-"
        daemon = spawnd(f'a = {{ {sh(script)} user = "root", stop_timeout = "1s" }}')
        wait_until(begun.exists, "a process that is about to hang")
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        held = "its processes were killed and are not gone yet"
        wait_until(lambda: held in why(daemon, "a")["answer"], "the end of its time")
        assert "the kernel holds them" in why(daemon, "a")["hint"]
        assert f"stop requested; {held}" in daemon.services()["a"]["reason"]
    daemon.wait_state("a", "stopped")
    assert held not in daemon.services()["a"]["reason"]


def test_a_stop_does_not_hide_the_end_of_the_process(spawnd: Start) -> None:
    functions = "function start() end\nfunction stop() end\nbackoff = { first = '1h', max = '1h' }\n"
    script = 'exec = "/bin/sh"\narg = { "-c", "@" }\nstdout = log()\n'
    daemon = spawnd(
        module("exits", functions + script.replace("@", "exit 3"))
        + module("killed", functions + script.replace("@", "kill -KILL $$"))
        + module("nothing", functions + 'exec = "@/nothing"')
        + module("fails", functions.replace("stop() end", "stop() return nil, 'busy' end") + 'exec = "/bin/false"')
    )
    daemon.wait_state("exits", "backoff")
    reply = why(daemon, "exits")
    assert (reply["kind"], reply["chain"][0]["exit_status"]) == ("exit", 3)
    assert "its process exited with status 3" in reply["answer"]
    assert status_of(daemon, "exits", "exited with status 3", "stop succeeded")
    daemon.wait_state("killed", "backoff")
    assert why(daemon, "killed")["kind"] == "signal"
    assert status_of(daemon, "killed", "killed by KILL", "stop succeeded")
    daemon.wait_state("nothing", "backoff")
    reply = why(daemon, "nothing")
    assert (reply["kind"], reply["chain"][0]["step"]) == ("setup", "exec")
    assert "it could not exec" in reply["answer"]
    assert f"see {daemon.definitions}:" in reply["hint"]
    daemon.wait_state("fails", "backoff")
    reply = why(daemon, "fails")
    assert reply["chain"][0]["exit_status"] == 1
    assert "its process exited with status 1; stop failed: busy; failure 1 of 10" in reply["answer"]
    assert daemon.services()["fails"]["reason"].startswith("exited with status 1; stop failed: busy")


def status_of(daemon: Daemon, name: str, last_exit: str, last_call: str) -> bool:
    text = daemon.ctl("status", name).stdout
    return f"Last exit: {last_exit}\n" in text and f"Last call: {last_call}\n" in text


def test_orders(spawnd: Start, program: Program) -> None:
    stubborn = program("stubborn", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.05; done\n")
    daemon = spawnd(
        f"""
        known = {{ {SLEEP}, status = "stop" }}
        a = {{ {SLEEP} }}
        rival = {{ {SLEEP}, conflicts = "a", status = "stop" }}
        never = {{ {SLEEP}, ready = "notify", start_timeout = false }}
        after = {{ {SLEEP}, after = "never" }}
        stubborn = {{ exec = "{stubborn}", env = {{ PATH = "/bin:/usr/bin" }}, stop_timeout = "1h" }}
        """
    )
    daemon.wait_state("a", "running")
    assert why(daemon, "known")["kind"] == "not_started"
    assert daemon.ctl("stop", "a").returncode == 0
    assert why(daemon, "a")["kind"] == "stopped"
    assert daemon.ctl("start", "a", "rival").returncode != 0
    reply = wait_kind(daemon, "a", "conflict")
    assert reply["chain"][0]["other"] == "rival"
    assert reply["hint"] == "`spawnctl start a` starts it, and stops rival"
    reply = wait_kind(daemon, "after", "starting")
    assert (reply["root"], [link["kind"] for link in reply["chain"]]) == ("never", ["order", "starting"])
    daemon.wait_running("stubborn")
    wait_until(lambda: daemon.ctl("stop", "--no-wait", "stubborn").returncode == 0, "the order")
    link = wait_kind(daemon, "stubborn", "stopped")["chain"][0]
    assert link["state"] == "stopping"
    assert 3000 < link["left_s"] <= 3600
    os.kill(link["pid"], signal.SIGKILL)


def test_changed_definitions(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\nc = {{ {SLEEP} }}")
    daemon.wait_state("c", "running")
    reload(daemon, f'a = {{ {SLEEP}, status = "stop" }}\nb = {{ {SLEEP}, cwd = "/tmp" }}\nc = {{ {SLEEP} }}')
    assert 'status = "stop"' in wait_kind(daemon, "a", "definition")["answer"]
    wait_until(lambda: why(daemon, "b")["last_restart"] == "definition", "the restart")
    assert daemon.ctl("why", "b").stdout.endswith("; restarted because its definition has changed\n")
    assert why(daemon, "c")["last_restart"] is None


def test_one_that_runs(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP}, restart_signal = "RTMIN+5", healthy_after = 0 }}')
    pid = daemon.wait_running("a")
    assert why(daemon, "a")["last_restart"] is None
    os.kill(pid, signal.SIGKILL)
    pid = daemon.wait_running("a", other_than=pid)
    reply = why(daemon, "a")
    assert (reply["kind"], reply["last_restart"], reply["chain"][0]["signal"]) == ("running", "signal", 9)
    assert "; restarted because its process was killed by KILL\n" in daemon.ctl("why", "a").stdout
    daemon.signal(signal.SIGRTMIN + 5)
    pid = daemon.wait_running("a", other_than=pid)
    assert why(daemon, "a")["last_restart"] == "restart_signal"
    assert daemon.ctl("restart", "a").returncode == 0
    assert why(daemon, "a")["last_restart"] == "restart"
