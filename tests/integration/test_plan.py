"""plan and apply with a real spawnd: what they touch, what they wait for, what they refuse."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.daemon import BIN, Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.test_reload import SLEEP, pids
from tests.integration.test_reload_edges import ENV, SLOW
from tests.ports import free_port
from tests.unit.process.requirements import needs_root

HIDDEN = "never-to-be-shown"
STUBBORN = (
    "exec = \"/bin/sh\", arg = { \"-c\", \"trap '' TERM; while :; do sleep 0.05; done\" }, "
    f'{ENV}, stop_timeout = "60s"'
)


def write(daemon: Daemon, text: str) -> None:
    daemon.definitions.write_text(text.replace("@", str(daemon.folder)))


def plan(daemon: Daemon, *options: str) -> dict[str, Any]:
    result = daemon.ctl("plan", "--json", *options)
    reply: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (1 if reply["services"] or reply["settings"] or reply["problems"] else 0)
    return reply


def steps(reply: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["step"] for row in reply["services"]}


def open_files(daemon: Daemon) -> dict[str, str]:
    """Return the descriptors of spawnd; connections of clients whose end it has not noticed yet are among them."""
    found = {}
    for number in os.listdir(f"/proc/{daemon.pid}/fd"):
        with suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/{daemon.pid}/fd/{number}")
    return found


def test_a_plan_touches_nothing(spawnd: Start) -> None:
    port = free_port()
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\n")
    daemon.wait_state("b", "running")
    before, files = pids(daemon), open_files(daemon)
    write(daemon, f'_SUPERVISOR = {{ log_level = "debug" }}\na = {{ {SLEEP}, fd = {{ tcp("127.0.0.1", {port}) }} }}')
    assert steps(plan(daemon)) == {"a": "rebuild", "b": "stop"}
    assert pids(daemon) == before
    wait_until(lambda: open_files(daemon).items() <= files.items(), "the end of what the plan has opened")
    assert "debug" not in daemon.log()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_a_plan_reads_the_files_as_they_are_now(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\n")
    assert plan(daemon)["services"] == []
    write(daemon, f"\n\na = {{ {SLEEP} }} -- elsewhere\n")
    assert plan(daemon)["services"] == []
    write(daemon, f"a = {{ {SLEEP},\n  nice = 3 }}\n")
    ((row,), settings) = plan(daemon)["services"], plan(daemon)["settings"]
    (key,) = row["keys"]
    assert (key["key"], key["old"], key["new"], key["line"]) == ("nice", "nil", "3", 2)
    assert settings == []


def test_what_an_env_file_holds_is_never_shown(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\n")
    for number in (1, 2):
        (daemon.folder / f"env{number}").write_text(f"PASSWORD={HIDDEN}\n")
    write(daemon, f'a = {{ {SLEEP}, env_file = "@/env1" }}\n')
    results = [daemon.ctl("plan"), daemon.ctl("plan", "--json"), daemon.ctl("apply")]
    pid = daemon.wait_running("a")
    assert HIDDEN.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    write(daemon, f'a = {{ {SLEEP}, env_file = {{ "@/env1", "@/env2" }} }}\n')
    results += [daemon.ctl("plan"), daemon.ctl("apply", "--json")]
    assert all("env_file changed" in result.stdout for result in results)
    assert HIDDEN not in "".join(result.stdout + result.stderr for result in results) + daemon.log()


def test_apply_refuses_what_has_changed_since_the_plan(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\n")
    daemon.wait_state("a", "running")
    before = pids(daemon)
    write(daemon, f"a = {{ {SLEEP}, nice = 3 }}\n")
    digest = plan(daemon)["digest"]
    write(daemon, f"a = {{ {SLEEP}, nice = 4 }}\n")
    result = daemon.ctl("apply", "--expect", digest)
    assert result.returncode == 1
    assert "not the expected definitions, nothing was changed" in result.stderr
    assert pids(daemon) == before
    write(daemon, f"-- a word more\na = {{ {SLEEP}, nice = 3 }}\n")
    assert daemon.ctl("apply", "--expect", digest).returncode == 0
    assert pids(daemon) != before
    assert plan(daemon)["digest"] == digest


def test_apply_finds_a_busy_port_before_it_touches_anything(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\nc = {{ {SLEEP}, status = "stop" }}\n')
    daemon.wait_state("b", "running")
    before = pids(daemon)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        fd = f'fd = {{ tcp("127.0.0.1", {port}) }}'
        for text in (
            f"a = {{ {SLEEP}, nice = 3 }}\nb = {{ {SLEEP}, {fd} }}\n",  # one that runs
            f"a = {{ {SLEEP}, nice = 3 }}\nd = {{ {SLEEP}, {fd} }}\n",  # a new one
            f"a = {{ {SLEEP}, nice = 3 }}\nc = {{ {SLEEP}, {fd} }}\n",  # one that is to be up from now on
        ):
            write(daemon, text)
            result = daemon.ctl("apply")
            assert result.returncode == 1
            assert f"cannot bind tcp 127.0.0.1:{port}" in result.stdout
            assert result.stdout.startswith(f"{daemon.definitions}:2: ")
            assert result.stderr == "spawnctl: nothing was changed: 1 problem\n"
            assert pids(daemon) == before
    assert daemon.ctl("apply").returncode == 0
    assert daemon.state("c") == "running"
    with socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_service_that_fails_anyway_holds_no_change_back(spawnd: Start) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        failing = f'exec = "/bin/sleep", start_limit = 1, fd = {{ tcp("127.0.0.1", {busy.getsockname()[1]}) }}'
        daemon = spawnd(f"a = {{ {failing} }}\nb = {{ {SLEEP} }}\n")
        daemon.wait_state("a", "failed")
        write(daemon, f"a = {{ {failing}, nice = 3 }}\nb = {{ {SLEEP}, nice = 3 }}\n")
        result = daemon.ctl("apply", "--json")
        assert result.returncode == 1
        rows = {row["name"]: (row["step"], row["ok"]) for row in json.loads(result.stdout)["services"]}
        assert rows == {"a": ("start", False), "b": ("restart", True)}


def test_apply_waits_until_all_has_settled(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLOW} }}\nb = {{ {SLOW} }}\nc = {{ {SLEEP} }}\n")
    daemon.wait_state("b", "running")
    before = pids(daemon)
    write(daemon, f"a = {{ {SLOW}, nice = 1 }}\nc = {{ {SLEEP} }}\n")
    result = daemon.ctl("apply")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["a: restart: nice changed: running", "b: stop: no longer defined: stopped"]
    after = daemon.services()
    assert list(after) == ["a", "c"]
    assert after["a"]["state"] == "running"
    assert after["a"]["pid"] not in (None, before["a"])
    assert not Path(f"/proc/{before['b']}").exists()


def test_apply_that_does_not_wait(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLOW} }}\n")
    daemon.wait_state("a", "running")
    write(daemon, f"a = {{ {SLOW}, nice = 1 }}\n")
    result = daemon.ctl("apply", "--no-wait")
    assert (result.returncode, result.stdout) == (0, "a: restart: nice changed: stopping: definition changed\n")
    assert plan(daemon)["services"] == [], "it has its new definition as soon as it starts"


def test_what_waits_to_be_stopped_is_not_restarted(spawnd: Start) -> None:
    daemon = spawnd(f'db = {{ {SLEEP} }}\nweb = {{ {STUBBORN}, depends = "db" }}\n')
    pid = daemon.wait_running("web")
    assert daemon.ctl("stop", "all", "--no-wait").returncode == 0
    assert daemon.state("db") == "running", "web goes first"
    write(daemon, f'db = {{ {SLEEP}, nice = 1 }}\nweb = {{ {STUBBORN}, depends = "db" }}\n')
    (row,) = plan(daemon)["services"]
    assert (row["step"], row["deferred"]) == ("adopt", True)
    assert daemon.ctl("apply").returncode == 0
    os.kill(pid, signal.SIGKILL)
    daemon.wait_state("db", "stopped")
    assert "db: stopping: definition changed" not in daemon.log()


def test_what_is_defined_again_before_its_turn_to_stop(spawnd: Start) -> None:
    daemon = spawnd(f'db = {{ {SLEEP} }}\nweb = {{ {STUBBORN}, depends = "db" }}\n')
    web, pid = daemon.wait_running("web"), daemon.wait_running("db")
    write(daemon, "")
    assert daemon.ctl("apply", "--no-wait").returncode == 0
    write(daemon, f'db = {{ {SLEEP}, env = {{ X = "1" }} }}\n')
    assert steps(plan(daemon)) == {"db": "restart"}
    assert daemon.ctl("apply").returncode == 0
    new = daemon.wait_running("db", other_than=pid)
    assert b"X=1" in Path(f"/proc/{new}/environ").read_bytes().split(b"\0")
    os.kill(web, signal.SIGKILL)
    wait_until(lambda: list(daemon.services()) == ["db"], "the end of web")


def test_the_log_worker_is_in_the_plan(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\n")
    write(daemon, f"a = {{ {SLEEP} }}\nb = {{ {SLEEP}, stdout = log() }}\n")
    assert steps(plan(daemon)) == {"b": "start", "log": "start"}
    result = daemon.ctl("apply")
    assert result.stdout.splitlines() == ["b: start: new: running", "log: start: b has log(): running"]
    assert plan(daemon)["services"] == []


def test_hup_does_what_a_plan_with_reloads_says(spawnd: Start) -> None:
    script = "trap 'echo >> @/out/heard' HUP; : > @/out/trapped; while :; do sleep 0.02; done"
    text = f"""
    r = {{ exec = "/bin/sh", arg = {{ "-c", "{script}" }}, env = {{ PATH = "/bin:/usr/bin" }}, reload_signal = "HUP" }}
    a = {{ {SLEEP} }}
    """
    daemon = spawnd(text)
    wait_until((daemon.folder / "out" / "trapped").exists, "the trap")
    daemon.wait_state("r", "running")
    heard = daemon.folder / "out" / "heard"
    assert plan(daemon)["services"] == []
    assert daemon.ctl("apply").returncode == 0
    assert steps(plan(daemon, "--reload")) == {"r": "reload"}
    assert not heard.exists()
    result = daemon.ctl("apply", "--reload")
    assert result.stdout == "r: reload: it has a reload_signal: running\n"
    wait_until(heard.exists, "the reload")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: heard.read_text() == "\n\n", "the other reload")


@needs_root
def test_shared_secrets_are_told_of_with_a_change_to_one_who_shares(spawnd: Start) -> None:
    text = f'a = {{ {SLEEP}, env_file = "@/secret" }}\nb = {{ {SLEEP} }}\n'
    daemon = spawnd("")
    (daemon.folder / "secret").touch(0o600)
    write(daemon, text)
    assert "a and b run as user 'nobody'" in daemon.ctl("apply").stdout
    assert plan(daemon)["notices"] == []
    assert daemon.ctl("apply").stdout == "Nothing to do\n"
    others = f"{text}c = {{ {SLEEP}, user = 'daemon', group = 'daemon' }}\n"
    write(daemon, others)
    assert plan(daemon)["notices"] == []
    write(daemon, others.replace(" }\nc", ", nice = 1 }\nc"))
    (told,) = plan(daemon)["notices"]
    assert "env_file" in told
    assert daemon.ctl("apply").stdout.count("notice: ") == 1
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.log().count("definitions reloaded") == 4, "the reload")
    assert daemon.log().count("run as user 'nobody'") == 2


def test_a_program_that_does_not_exist_is_told_of_before_the_restart(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\n")
    pid = daemon.wait_running("a")
    write(daemon, 'a = { exec = "/nowhere/x" }\n')
    expected = f"{daemon.definitions}:1: a: exec: '/nowhere/x' does not exist"
    reply = plan(daemon)
    assert (steps(reply), reply["notices"]) == ({"a": "restart"}, [expected])
    assert daemon.ctl("check").stdout == f"notice: {expected}\nOK: 1 service, 1 notice\n"
    assert daemon.pid_of("a") == pid


def test_the_log_level_of_the_command_line_counts(spawnd: Start) -> None:
    daemon = spawnd("", "--log-level", "notice")
    write(daemon, '_SUPERVISOR = { log_level = "debug" }\n')
    reply = plan(daemon)
    assert reply["notices"] == ["_SUPERVISOR.log_level has no effect: spawnd was started with --log-level notice"]
    assert [(row["key"], row["line"]) for row in reply["settings"]] == [("log_level", 1)]
    assert daemon.ctl("apply").returncode == 0
    assert "debug" not in daemon.log().replace("_SUPERVISOR.log_level", "")


def test_plans_and_changes_at_the_same_time(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\n")
    command = [str(BIN / "spawnctl"), "--socket", str(daemon.socket)]
    running = []
    for number in range(6):
        write(daemon, f"a = {{ {SLEEP}, nice = {number} }}\nb{number} = {{ {SLEEP} }}\n")
        running += [
            subprocess.Popen([*command, verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for verb in ("plan", "apply", "check")
        ]
        daemon.signal(signal.SIGHUP)
    for process in running:
        _out, err = process.communicate(timeout=60)
        assert process.returncode in (0, 1), err
    assert daemon.ctl("apply").returncode == 0
    assert list(daemon.services()) == ["a", "b5"]
    assert plan(daemon)["services"] == []
    assert "unexpected error" not in daemon.log()


def test_apply_while_it_shuts_down(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {STUBBORN} }}\n")
    daemon.wait_state("a", "running")
    daemon.signal(signal.SIGTERM)
    daemon.wait_state("a", "stopping")
    write(daemon, f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\n")
    result = daemon.ctl("apply")
    assert result.returncode == 1
    assert "shutting down" in result.stderr


def test_a_change_elsewhere_in_the_file_is_none_of_its_functions(spawnd: Start) -> None:
    text = f'''
        a = {{ {SLEEP} }}
        local said = "old"
        module("b", package.seeall)
        function start() end
        function status() return nil, said end
        module("c", package.seeall)
        function start() end
    '''
    daemon = spawnd(text)
    daemon.wait_state("c", "running")
    write(daemon, text.replace("a = {", "\na = { nice = 1,"))
    assert steps(plan(daemon)) == {"a": "restart"}
    assert daemon.ctl("apply").returncode == 0
    assert "old" in daemon.ctl("status", "b").stdout
    daemon.lose()
    daemon.again()
    assert "old" in daemon.ctl("status", "b").stdout
    write(daemon, text.replace("a = {", "\na = { nice = 1,").replace("old", "new"))
    assert steps(plan(daemon)) == {"b": "adopt"}
    assert "functions changed" in daemon.ctl("plan").stdout
    assert daemon.ctl("apply").returncode == 0
    assert "new" in daemon.ctl("status", "b").stdout
