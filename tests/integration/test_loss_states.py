"""A loss of spawnd in each state that a service can be in."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon, children, command_name, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, dated, started, wait_reaped, with_argument
from tests.integration.test_life import NOTIFY, SLEEP
from tests.integration.test_reload import reload
from tests.integration.test_reload_edges import ENV

Program = Callable[[str, str], str]
STUBBORN = "#!/bin/sh\ntrap '' TERM\n: > $1/trapped\nwhile :; do sleep 0.05; done\n"
FORKS = "#!/bin/sh\nsleep 424242 &\nexec sleep 100000\n"


def lose(daemon: Daemon) -> None:
    daemon.lose()
    daemon.again()


# at rest, or waiting


def test_what_is_at_rest_stays_so(spawnd: Start) -> None:
    daemon = spawnd(
        f"""
        stopped = {{ {SLEEP} }}
        never = {{ {SLEEP}, status = "stop" }}
        failed = {{ exec = "/bin/false", start_limit = 1 }}
        done = {{ exec = "/bin/true", task = true }}
        """
    )
    daemon.wait_running("stopped")
    assert daemon.ctl("stop", "stopped").returncode == 0
    daemon.wait_state("failed", "failed")
    daemon.wait_state("done", "done")
    before = daemon.services()
    lose(daemon)
    after = daemon.services()
    assert [row["state"] for row in after.values()] == ["stopped", "stopped", "failed", "done"]
    assert list(after) == list(before)
    assert [row["reason"] for row in after.values()] == [row["reason"] for row in before.values()]
    assert [row["since"][:17] for row in after.values()] == [row["since"][:17] for row in before.values()]
    assert daemon.log().count("Starting") == 3
    assert "exited with status 1" in daemon.ctl("status", "failed").stdout


def test_a_wait_between_failures_goes_on(spawnd: Start) -> None:
    keys = 'backoff = { first = "8s", factor = 1, jitter = 0 }, healthy_after = "1m"'
    daemon = spawnd(f's = {{ exec = "/bin/false", {keys} }}')
    daemon.wait_state("s", "backoff")
    waits = time.monotonic()
    lose(daemon)
    assert daemon.state("s") == "backoff"
    wait_until(lambda: daemon.log().count("s: exited with status 1; failure") == 2, "the second start", pause=0.02)
    assert time.monotonic() - waits > 7
    daemon.wait_log("failure 2")


def test_what_waits_for_another_waits_on(spawnd: Start, program: Program) -> None:
    daemon = spawnd(
        f"""
        app = {{ {SLEEP}, depends = {{ "db" }} }}
        db = {{ exec = "@/db", backoff = {{ first = "1h", max = "1h" }} }}
        """
    )
    daemon.wait_state("db", "backoff")
    lose(daemon)
    assert daemon.state("app") == "waiting"
    assert "needs db, which waits for its next try" in daemon.services()["app"]["reason"]
    program("db", "#!/bin/sh\nexec /bin/sleep 100000\n")
    assert daemon.ctl("start", "db").returncode == 0
    daemon.wait_state("app", "running")


# stopping


def test_one_that_is_stopping_is_killed_at_its_deadline(spawnd: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("stubborn", STUBBORN)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "8s"'
    daemon = spawnd(f"s = {{ {keys} }}\nt = {{ {SLEEP} }}")
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    begun = time.monotonic()
    assert daemon.ctl("stop", "--no-wait", "s").returncode == 0
    lose(daemon)
    assert daemon.state("s") == "stopping"
    daemon.wait_state("s", "stopped")
    assert time.monotonic() - begun > 7.9
    assert not alive(pid)


def test_one_that_stops_while_nobody_looks_has_stopped(spawnd: Start, program: Program, folder: Path) -> None:
    slow = "#!/bin/sh\ntrap 'exec sleep 0.3' TERM\n: > $1/trapped\nwhile :; do sleep 0.05; done\n"
    daemon = spawnd(f's = {{ exec = "{program("slow", slow)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "1m" }}')
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    assert daemon.ctl("stop", "--no-wait", "s").returncode == 0
    daemon.lose()
    wait_until(lambda: not alive(pid), "its end")
    daemon.again()
    daemon.wait_state("s", "stopped")
    assert daemon.log().count("Starting s") == 1


def test_a_removed_one_that_stops_while_nobody_looks_is_forgotten(
    spawnd: Start, program: Program, folder: Path
) -> None:
    keys = f'exec = "{program("stubborn", STUBBORN)}", arg = {{ "@/out" }}, {ENV}'
    daemon = spawnd(f"kept = {{ {SLEEP} }}\ns = {{ {keys} }}")
    kept, pid = daemon.wait_running("kept"), daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    reload(daemon, f"kept = {{ {SLEEP} }}")
    daemon.wait_state("s", "stopping")
    daemon.lose()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "its end")
    daemon.again()
    assert {name: row["pid"] for name, row in daemon.services().items()} == {"kept": kept}


def test_a_restart_under_way_ends_with_a_start(spawnd: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("stubborn", STUBBORN)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "1s"'
    daemon = spawnd(f"s = {{ {keys} }}")
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    assert daemon.ctl("restart", "--no-wait", "s").returncode == 0
    lose(daemon)
    assert daemon.wait_running("s", other_than=pid) != pid
    assert not alive(pid)


def test_a_loss_while_everything_is_being_stopped(spawnd: Start, program: Program, folder: Path) -> None:
    """Whoever starts spawnd anew wants its services; one that somebody stopped before is not among them."""
    keys = f'exec = "{program("stubborn", STUBBORN)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "6s"'
    daemon = spawnd(f"s = {{ {keys} }}\nt = {{ {SLEEP} }}")
    first = daemon.wait_running("s")
    daemon.wait_running("t")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("t: stopped")
    lose(daemon)
    daemon.wait_running("t")
    daemon.wait_running("s", other_than=first)
    assert not alive(first)
    assert daemon.stop() == 0


def test_what_is_to_come_after_a_stop_comes(spawnd: Start, program: Program, folder: Path) -> None:
    """A changed definition that waits for the old process to be gone, and one that is removed."""
    script = program("stubborn", STUBBORN)
    keys = {name: f'exec = "{script}", arg = {{ "@/out/{name}" }}, {ENV}, stop_timeout = "1m"' for name in "sr"}
    traps = [folder / "out" / name for name in "sr"]
    for trap in traps:
        trap.mkdir()
        trap.chmod(0o777)
    daemon = spawnd(f"s = {{ {keys['s']} }}\nr = {{ {keys['r']} }}\nt = {{ {SLEEP} }}")
    pids = [daemon.wait_running(name) for name in "sr"]
    wait_until(lambda: all((trap / "trapped").exists() for trap in traps), "the traps")
    reload(daemon, f's = {{ {SLEEP}, description = "the new one" }}\nt = {{ {SLEEP} }}')
    assert daemon.state("s") == "stopping"
    lose(daemon)
    assert daemon.state("s") == "stopping"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    second = daemon.wait_running("s", other_than=pids[0])
    wait_until(lambda: command_name(second) == "sleep", "the new program")
    assert daemon.services()["s"]["description"] == "the new one"
    wait_until(lambda: "r" not in daemon.services(), "the end of the one that was removed")
    assert not any(map(alive, pids))


# starting


@pytest.mark.parametrize("how", ["fd", "notify"])
def test_one_that_is_not_ready_yet_can_say_so_later(spawnd: Start, program: Program, folder: Path, how: str) -> None:
    say = 'os.write(3, b"\\n")' if how == "fd" else 'say("READY=1")'
    script = program(
        "ready", NOTIFY + f"while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n{say}\ntime.sleep(100000)\n"
    )
    keys = f'exec = "{script}", arg = {{ "@/out/go" }}, ready = "{how}"'
    daemon = spawnd(f's = {{ {keys} }}\nafter = {{ {SLEEP}, depends = "s" }}')
    pid = daemon.wait_pid("s")
    lose(daemon)
    assert (daemon.state("s"), daemon.state("after")) == ("starting", "waiting")
    (folder / "out" / "go").touch()
    daemon.wait_state("after", "running")
    assert daemon.pid_of("s") == pid
    assert daemon.services()["s"]["reason"] == "running"


@pytest.mark.parametrize("closes", [False, True])
def test_what_was_said_on_a_pipe_before_is_still_in_it(
    spawnd: Start, program: Program, folder: Path, closes: bool
) -> None:
    """Also where it has closed its end by now, which would be silence at any other time."""
    more = "os.close(3)" if closes else ""
    script = program(
        "ready",
        NOTIFY
        + f"""
import signal
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.02)
try:
    os.write(3, b"\\n")
except BrokenPipeError:
    pass
{more}
open(sys.argv[1] + "/said", "w")
time.sleep(100000)
""",
    )
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, ready = "fd", start_timeout = "3s" }}')
    pid = daemon.wait_pid("s")
    daemon.lose()
    (folder / "out" / "go").touch()
    wait_until((folder / "out" / "said").exists, "its word")
    daemon.again()
    daemon.wait_state("s", "running")
    assert daemon.pid_of("s") == pid


def test_what_said_that_it_is_ready_into_nothing_is_not_killed(spawnd: Start, program: Program, folder: Path) -> None:
    script = program(
        "ready",
        NOTIFY
        + """
while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.02)
try:
    say("READY=1")
except ConnectionRefusedError:
    open(sys.argv[1] + "/said", "w")
time.sleep(100000)
""",
    )
    daemon = spawnd(f's = {{ exec = "{script}", arg = {{ "@/out" }}, ready = "notify", start_timeout = "4s" }}')
    pid = daemon.wait_pid("s")
    daemon.lose()
    (folder / "out" / "go").touch()
    wait_until((folder / "out" / "said").exists, "its word")
    daemon.again()
    daemon.wait_state("s", "running")  # perhaps at once, as its time may be over
    assert daemon.pid_of("s") == pid
    assert "not heard" in daemon.services()["s"]["reason"]


def test_a_check_that_runs_is_ended_and_made_again(spawnd: Start, folder: Path) -> None:
    check = 'check = { "/bin/sh", "-c", "while ! test -e @/out/fine; do sleep 0.05; done", "@/mark" }'
    daemon = spawnd(f"s = {{ {SLEEP}, {check}, {ENV} }}")
    first = min(wait_until(lambda: with_argument(folder / "mark"), "the check"))  # and what it starts itself
    daemon.lose()
    assert alive(first)
    daemon.again()
    wait_until(lambda: with_argument(folder / "mark"), "the next check")
    assert not alive(first)
    assert daemon.state("s") == "starting"
    (folder / "out" / "fine").touch()
    daemon.wait_state("s", "running")


# what it has left to run beside it


@pytest.mark.parametrize("killed", ["before", "meanwhile", "after", "never"])
def test_others_that_are_to_live_on_do_so_until_a_stop(spawnd: Start, program: Program, killed: str) -> None:
    daemon = spawnd(
        f's = {{ exec = "{program("forks", FORKS)}", {ENV}, healthy_after = 0, kill_mode = "process" }}\n'
        f"t = {{ {SLEEP} }}"
    )
    first = daemon.wait_running("s")
    wait_until(lambda: len(children(first)) == 1 and command_name(first) == "sleep", "the second process")
    other, main = children(first)[0], first
    if killed == "before":
        os.kill(first, signal.SIGKILL)
        main = daemon.wait_running("s", other_than=first)
    wait_until(lambda: dated(daemon) > started(other), "a state that was true when both were there")
    daemon.lose()
    if killed == "meanwhile":
        os.kill(first, signal.SIGKILL)
        wait_reaped(first)
    daemon.again()
    if killed == "meanwhile":
        main = daemon.wait_running("s", other_than=first)
    assert daemon.pid_of("s") == main
    if killed == "after":
        os.kill(first, signal.SIGKILL)
        main = daemon.wait_running("s", other_than=first)
    lose(daemon)
    assert daemon.pid_of("s") == main
    assert alive(other)
    assert daemon.ctl("restart", "s").returncode == 0
    assert alive(other)
    assert daemon.ctl("stop", "s").returncode == 0
    wait_until(lambda: not alive(other), "the end of the other")


# Ends by itself; started to be stopped, it says that it is ready when the file $1 is there, and ends on TERM.
KEEPS = """#!/bin/sh
[ "$SPAWND_LAST" ] || exit 1
trap 'echo told > $1.told; exit 0' TERM
while [ ! -e $1 ]; do sleep 0.01; done
[ "$2" ] || echo >&9
exec 9>&-
while :; do sleep 0.01; done
"""


@pytest.mark.parametrize("how", ["", "quiet"])
def test_one_that_is_started_to_be_stopped_can_say_later_that_it_is_ready(
    spawnd: Start, program: Program, folder: Path, how: str
) -> None:
    path = program("keeps", KEEPS)
    signs = folder / "out" / "sign"
    keeps = 'kill_mode = "process", handover_signal = "USR1", backoff = { first = "1h", max = "1h" }'
    ready = 'ready = "fd", ready_fd = 9, start_timeout = false, stop_timeout = false'
    arg = f'arg = {{ "{signs}", "{how}" }}, env = {{ PATH = "/bin:/usr/bin" }}'
    daemon = spawnd(f's = {{ exec = "{path}", {arg}, {ready}, {keeps} }}')
    daemon.wait_state("s", "backoff")
    assert daemon.ctl("stop", "s", "--no-wait").returncode == 0
    daemon.wait_pid("s")
    lose(daemon)
    assert daemon.state("s") == "stopping"
    assert not signs.with_name("sign.told").exists()
    signs.touch()
    daemon.wait_state("s", "stopped")
    assert signs.with_name("sign.told").exists()
