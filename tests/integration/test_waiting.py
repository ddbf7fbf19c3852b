"""Messages for an operator while an order is carried out, and ways to stop waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.daemon import BIN, Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.following import Following
from tests.integration.screen import Screen

Program = Callable[[str, str], str]
SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
ENV = 'env = { PATH = "/bin:/usr/bin" }'
READY = '#!/bin/sh\nwhile ! test -e "$1"; do sleep 0.05; done\necho >&3\nexec sleep 100000\n'
STUBBORN = '#!/bin/sh\ntrap "" TERM\necho >&3\nwhile :; do sleep 0.1; done\n'
WAITS = "web is not running: it needs db, which is starting: it has not said yet that it is ready"


def late(spawnd: Start, program: Program) -> Daemon:
    """web waits for db, which waits for the file `go`."""
    db = f'exec = "{program("ready", READY)}", arg = {{ "@/out/go" }}, {ENV}, ready = "fd", status = "stop"'
    return spawnd(f'db = {{ {db} }}\nweb = {{ {SLEEP}, depends = "db", status = "stop" }}')


def test_a_terminal_is_told_what_a_start_waits_for(spawnd: Start, program: Program, folder: Path) -> None:
    daemon = late(spawnd, program)
    start = f"{BIN}/spawnctl --socket {daemon.socket} start web"
    alone = Screen(start.split(), columns=300)
    piped = Screen(["sh", "-c", f"{start} 2>{folder}/out/said"], columns=300)
    quiet = Screen([*start.split(), "--quiet"], columns=300)
    narrow = Screen(start.split(), columns=40)
    with alone, piped, quiet, narrow, Following(daemon, "start", "web") as following:
        for _ in range(2):  # again and again
            assert alone.read_until(f"waiting: {WAITS}") in ("", "\r\n")
            alone.read_until(" left")
        assert "waiting: web is not running: it needs\r\n" in narrow.read_until("which")
        (folder / "out" / "go").touch()
        assert (alone.wait(), piped.wait(), quiet.wait(), narrow.wait(), following.wait()) == (0, 0, 0, 0, 0)
        assert alone.seen.endswith("web: running\r\n")
        assert (piped.seen, quiet.seen, following.line(), following.line()) == (
            "web: running\r\n",
            "",
            "web: running",
            "",
        )
    assert (folder / "out" / "said").read_text() == ""


def test_a_start_that_is_not_waited_for_any_longer_goes_on(spawnd: Start, program: Program, folder: Path) -> None:
    daemon = late(spawnd, program)
    result = daemon.ctl("start", "web", "--timeout", "1")
    assert (result.returncode, result.stdout) == (7, "")
    assert result.stderr.startswith(f"spawnctl: the start is not done after 1 s, and goes on: {WAITS}")
    assert daemon.state("web") == "waiting"
    (folder / "out" / "go").touch()
    daemon.wait_state("web", "running")
    assert daemon.ctl("start", "web", "--timeout", "60").stdout == "web: running\n"


def test_a_shutdown_that_is_not_waited_for_any_longer_goes_on(spawnd: Start, program: Program) -> None:
    script = program("stubborn", STUBBORN)
    daemon = spawnd(f's = {{ exec = "{script}", {ENV}, ready = "fd", stop_timeout = "3s" }}')
    daemon.wait_running("s")
    result = daemon.ctl("shutdown", "--timeout", "0.5")
    assert (result.returncode, result.stdout) == (7, "")
    assert result.stderr == "spawnctl: the shutdown is not done after 0.5 s, and goes on\n"
    wait_until(daemon.ended, "the end of spawnd")
