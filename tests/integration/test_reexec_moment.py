"""What happens at the very moment of an exec: between it and the first thing that the new program does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.daemon import PATIENCE, Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive
from tests.integration.test_life import NOTIFY, SLEEP
from tests.integration.test_loss import QUICK
from tests.integration.test_loss_states import STUBBORN
from tests.integration.test_reexec import background, ends_well
from tests.integration.test_reload_edges import ENV
from tests.integration.versions import install

Program = Callable[[str, str], str]

SLOW = """
if resumes and not trial:
    open(sys.argv[0] + ".resumes", "w").close()
    while not os.path.exists(sys.argv[0] + ".begins"):
        time.sleep(0.01)
"""


def at_the_moment(daemon: Daemon, folder: Path) -> subprocess.Popen[str]:
    """An exec that has happened, of a program that does not begin before `begin`."""
    install(folder, SLOW)
    ctl = background(daemon, "reexec")
    wait_until((folder / "spawnd.resumes").exists, "the exec")
    return ctl


def begin(folder: Path) -> None:
    (folder / "spawnd.begins").touch()


def test_signals_that_come_at_the_moment(version: Start, folder: Path) -> None:
    text = f'a = {{ {SLEEP}, restart_signal = "RTMIN+1" }}\nb = {{ {SLEEP} }}'
    daemon = version(text)
    pids = {name: daemon.wait_running(name) for name in "ab"}
    with at_the_moment(daemon, folder) as ctl:
        daemon.definitions.write_text(f"{text}\nc = {{ {SLEEP} }}")
        for signum in (signal.SIGRTMIN + 1, signal.SIGRTMIN + 2, signal.SIGRTMIN + 2, signal.SIGHUP, signal.SIGUSR2):
            daemon.signal(signum)
        assert daemon.log().count("executed anew") == 0
        begin(folder)
        ends_well(ctl)
    daemon.wait_running("a", other_than=pids["a"])
    daemon.wait_running("c")
    assert daemon.log().count("signal RTMIN+2: no service") == 2
    assert "b: running for" in daemon.log()
    assert daemon.pid_of("b") == pids["b"]


def test_another_usr1_at_the_moment(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    with at_the_moment(daemon, folder) as ctl:
        install(folder)
        daemon.signal(signal.SIGUSR1)
        daemon.signal(signal.SIGUSR1)
        begin(folder)
        ends_well(ctl)
    wait_until(lambda: daemon.log().count("executed anew") == 2, "the second exec")
    assert daemon.pid_of("a") == pid


def test_term_at_the_moment(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    with at_the_moment(daemon, folder):
        daemon.signal(signal.SIGTERM)
        begin(folder)
        assert daemon.process is not None
        assert daemon.process.wait(PATIENCE) == 0
    assert not alive(pid)
    assert "all services have stopped" in daemon.log()


def test_signals_before_the_exec_that_were_not_handled_yet(version: Start) -> None:
    """In one burst with the one that asks for it, and while the trial goes on."""
    daemon = version(f'a = {{ {SLEEP}, restart_signal = "RTMIN+1" }}\nb = {{ {SLEEP} }}')
    pid = daemon.wait_running("a")
    for signum in [signal.SIGRTMIN + 2] * 3 + [signal.SIGUSR1] + [signal.SIGRTMIN + 2] * 3:
        daemon.signal(signum)

    def executed() -> bool:
        for signum in (signal.SIGRTMIN + 3, signal.SIGUSR2, signal.SIGHUP):
            daemon.signal(signum)
        return "executed anew" in daemon.log()

    wait_until(executed, "the exec")
    daemon.signal(signal.SIGRTMIN + 1)
    daemon.wait_running("a", other_than=pid)
    wait_until(lambda: daemon.log().count("RTMIN+2: no service") == 6, "each of them")


def test_services_that_die_at_the_moment(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP}, {QUICK} }}\nb = {{ {SLEEP}, {QUICK} }}\nc = {{ {SLEEP}, {QUICK} }}")
    pids = {name: daemon.wait_running(name) for name in "abc"}
    with at_the_moment(daemon, folder) as ctl:
        os.kill(pids["a"], signal.SIGKILL)
        os.kill(pids["b"], signal.SIGTERM)
        begin(folder)
        ends_well(ctl)
    for name in "ab":
        daemon.wait_running(name, other_than=pids[name])
    assert "a: killed by KILL" in daemon.log()
    assert "b: killed by TERM" in daemon.log()
    assert daemon.pid_of("c") == pids["c"]


def test_what_services_say_at_the_moment_is_heard(version: Start, program: Program, folder: Path) -> None:
    """Also the last words of one that dies, and what feeds a watchdog that would have run out."""
    feeds = program("feeds", NOTIFY + 'say("READY=1")\nwhile True:\n    say("WATCHDOG=1")\n    time.sleep(0.1)\n')
    ready = program(
        "ready",
        NOTIFY + "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
        'say("READY=1\\nSTATUS=at last")\nopen(sys.argv[1] + "-said", "w").close()\ntime.sleep(100000)\n',
    )
    daemon = version(
        f"""
        w = {{ exec = "{feeds}", ready = "notify", watchdog = "2s" }}
        r = {{ exec = "{ready}", arg = {{ "@/out/go" }}, ready = "notify" }}
        """
    )
    pid, other = daemon.wait_running("w"), daemon.wait_pid("r")
    with at_the_moment(daemon, folder) as ctl:
        executed = time.monotonic()
        (folder / "out" / "go").touch()
        wait_until((folder / "out" / "go-said").exists, "its word")
        wait_until(lambda: time.monotonic() - executed > 2.1, "a watchdog that has run out")
        assert daemon.log().count("executed anew") == 0
        begin(folder)
        ends_well(ctl)
    daemon.wait_state("r", "running")
    assert (daemon.pid_of("w"), daemon.pid_of("r")) == (pid, other)
    assert "at last" in daemon.ctl("status", "r").stdout
    assert "watchdog missed" not in daemon.log()


def test_deadlines_that_pass_at_the_moment(version: Start, program: Program, folder: Path) -> None:
    daemon = version(
        f'a = {{ exec = "{program("stubborn", STUBBORN)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "2s" }}\n'
        'b = { exec = "/bin/false", backoff = { first = "2s" } }'
    )
    pid = daemon.wait_running("a")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
    with at_the_moment(daemon, folder) as ctl:
        executed = time.monotonic()
        wait_until(lambda: time.monotonic() - executed > 2.1, "both deadlines")
        begin(folder)
        ends_well(ctl)
    daemon.wait_state("a", "stopped")
    assert not alive(pid)
    wait_until(lambda: daemon.log().count("b: exited with status 1; failure") > 1, "the next start")
