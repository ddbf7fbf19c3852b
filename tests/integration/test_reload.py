"""HUP: all or nothing, and by the least that does."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive
from tests.ports import free_port

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'


def reload(daemon: Daemon, definitions: str) -> None:
    """Change the definitions, HUP, and wait until spawnd has done with it, well or not."""
    before = daemon.log().count("definitions reloaded") + daemon.log().count("definitions not changed")
    daemon.definitions.write_text(definitions.replace("@", str(daemon.folder)))
    daemon.signal(signal.SIGHUP)
    wait_until(
        lambda: daemon.log().count("definitions reloaded") + daemon.log().count("definitions not changed") > before,
        "the reload",
    )


def pids(daemon: Daemon) -> dict[str, int]:
    return {name: row["pid"] for name, row in daemon.services().items()}


def test_only_what_changed_is_touched(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\nc = {{ {SLEEP} }}")
    daemon.wait_state("c", "running")
    before = pids(daemon)
    reload(daemon, f'b = {{ {SLEEP}, env = {{ X = "1" }} }}\na = {{ {SLEEP}, stop_timeout = "3s" }}\nd = {{ {SLEEP} }}')
    daemon.wait_state("d", "running")
    daemon.wait_state("b", "running")
    wait_until(lambda: list(daemon.services()) == ["b", "a", "d"], "the new order")
    after = pids(daemon)
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]
    assert b"X=1" in Path(f"/proc/{after['b']}/environ").read_bytes().split(b"\0")
    wait_until(lambda: not alive(before["c"]), "the end of c")


def test_any_error_leaves_everything_as_it_is(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    daemon.wait_state("b", "running")
    before = pids(daemon)
    reload(daemon, f'a = {{ {SLEEP}, env = {{ X = "1" }} }}\nc = {{ {SLEEP}, umaks = "022" }}')
    assert "services.lua:2: c: unknown key 'umaks', did you mean 'umask'?" in daemon.log()
    assert pids(daemon) == before
    reload(daemon, "a = { exec = ")
    assert pids(daemon) == before


def test_a_busy_port_leaves_everything_as_it_is(spawnd: Start) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        daemon = spawnd(f"a = {{ {SLEEP} }}")
        before = pids(daemon)
        fd = f'fd = {{ tcp("127.0.0.1", {port}) }}'
        reload(daemon, f"a = {{ {SLEEP}, {fd} }}\nb = {{ {SLEEP} }}")
        assert f"a: cannot bind tcp 127.0.0.1:{port}" in daemon.log()
        assert pids(daemon) == before
    reload(daemon, f"a = {{ {SLEEP}, {fd} }}\nb = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    with socket.create_connection(("127.0.0.1", port)):
        pass


def test_sockets_that_stay_the_same_stay_open(spawnd: Start) -> None:
    port, other = free_port(), free_port()
    daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ tcp("127.0.0.1", {port}) }} }}')
    pid = daemon.wait_pid("a")
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        reload(daemon, f'a = {{ {SLEEP}, fd = {{ tcp("127.0.0.1", {other}), tcp("127.0.0.1", {port}) }} }}')
        new = daemon.wait_running("a", other_than=pid)
        # still in the backlog: the listening socket that it waits at was not closed
        waiting.settimeout(0.2)
        try:
            assert waiting.recv(1) != b""
        except TimeoutError:
            pass
        names = sorted(os.listdir(f"/proc/{new}/fd"), key=int)
        assert names == ["0", "1", "2", "3", "4"]
        with socket.create_connection(("127.0.0.1", other)):
            pass


def test_status_stop_and_back(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    reload(daemon, f'a = {{ {SLEEP}, status = "stop" }}')
    daemon.wait_state("a", "stopped")
    reload(daemon, f"a = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")


def test_a_service_that_failed_is_tried_again_with_a_new_definition(spawnd: Start) -> None:
    daemon = spawnd('a = { exec = "/nonexistent", start_limit = 1 }')
    daemon.wait_state("a", "failed")
    reload(daemon, f"a = {{ {SLEEP}, start_limit = 1 }}")
    daemon.wait_state("a", "running")


def test_a_removed_service_that_comes_back_before_it_is_gone(spawnd: Start) -> None:
    stubborn = 'exec = "/bin/sh", arg = { "-c", "trap \'\' TERM; while :; do sleep 0.05; done" }'
    stubborn += ', env = { PATH = "/bin:/usr/bin" }, stop_timeout = "2s"'
    daemon = spawnd(f"a = {{ {stubborn} }}")
    pid = daemon.wait_pid("a")
    reload(daemon, f"b = {{ {SLEEP} }}")
    assert daemon.state("a") == "stopping"
    reload(daemon, f"a = {{ {stubborn} }}\nb = {{ {SLEEP} }}")
    daemon.wait_pid("a", other_than=pid)
    daemon.wait_state("a", "running")


def test_hup_is_passed_on_to_services_with_a_reload_signal(spawnd: Start) -> None:
    script = "trap 'echo heard > @/out/heard' HUP; : > @/out/trapped; while :; do sleep 0.05; done"
    env = 'env = { PATH = "/bin:/usr/bin" }'
    text = f'a = {{ exec = "/bin/sh", arg = {{ "-c", "{script}" }}, {env}, reload_signal = "HUP" }}'
    daemon = spawnd(text)
    wait_until((daemon.folder / "out" / "trapped").exists, "the trap")
    pid = daemon.wait_pid("a")
    reload(daemon, text)
    wait_until((daemon.folder / "out" / "heard").exists, "the signal")
    assert daemon.pid_of("a") == pid
