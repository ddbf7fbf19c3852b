"""The life of services under a real spawnd: restarts, back-off, readiness, time-outs, order."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import children, command_name, wait_until
from tests.integration.conftest import Start

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
NOTIFY = f"""#!{sys.executable} -IS
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""

Program = Callable[[str, str], str]


def test_a_healthy_service_that_is_killed_is_back_at_once(spawnd: Start) -> None:
    daemon = spawnd(f's = {{ {SLEEP}, healthy_after = "50ms" }}')
    first = daemon.wait_running("s")
    wait_until(lambda: daemon.services()["s"]["uptime_s"] > 0.05, "health: the time itself is what is tested")
    os.kill(first, signal.SIGKILL)
    second = daemon.wait_running("s", other_than=first)
    assert daemon.services()["s"]["restarts"] == 1
    assert "killed by KILL; starting it again" in daemon.log()
    assert second != first


def test_a_service_that_crashes_at_once_backs_off_and_is_given_up(spawnd: Start) -> None:
    daemon = spawnd('s = { exec = "/bin/false", start_limit = 4, backoff = { first = "20ms", max = "50ms" } }')
    daemon.wait_state("s", "failed")
    log = daemon.log()
    assert log.count("Starting s") == 1
    assert log.count("s: exited with status 1") == 3, "a line for each retry"
    assert "exited with status 1; failure 3" in log
    assert "s: failed: exited with status 1; 4 failures in a row" in log
    assert daemon.ctl("reset", "s").returncode == 0
    assert daemon.state("s") == "stopped"


def test_what_fails_in_the_set_up_is_named(spawnd: Start) -> None:
    missing = 'exec = "/nonexistent/program", start_limit = 1'
    daemon = spawnd(f's = {{ {missing} }}\nt = {{ {SLEEP}, cwd = "/nonexistent" }}')
    daemon.wait_state("s", "failed")
    assert "/nonexistent/program" in daemon.ctl("status", "s").stdout
    daemon.wait_log("No such file or directory")
    daemon.wait_log("'/nonexistent'")


def test_the_leader_s_group_is_killed_before_it_starts_again(spawnd: Start, program: Program) -> None:
    script = program("forks", "#!/bin/sh\nsleep 424242 &\nexec sleep 100000\n")
    daemon = spawnd(f's = {{ exec = "{script}", env = {{ PATH = "/bin:/usr/bin" }}, healthy_after = 0 }}')
    first = daemon.wait_pid("s")
    wait_until(lambda: len(children(first)) == 1 and command_name(first) == "sleep", "the second process")
    other = children(first)[0]
    os.kill(first, signal.SIGKILL)
    daemon.wait_pid("s", other_than=first)
    wait_until(lambda: not Path(f"/proc/{other}").exists(), "the end of what was left behind")


def test_kill_mode_process_leaves_the_others_alone_until_a_stop(spawnd: Start, program: Program) -> None:
    script = program("forks", "#!/bin/sh\nsleep 424242 &\nexec sleep 100000\n")
    daemon = spawnd(
        f's = {{ exec = "{script}", env = {{ PATH = "/bin:/usr/bin" }}, healthy_after = 0, kill_mode = "process" }}'
    )
    first = daemon.wait_pid("s")
    wait_until(lambda: len(children(first)) == 1 and command_name(first) == "sleep", "the second process")
    other = children(first)[0]
    wait_until(lambda: command_name(other) == "sleep", "its program")
    os.kill(first, signal.SIGKILL)
    daemon.wait_pid("s", other_than=first)
    assert daemon.ctl("restart", "s").returncode == 0
    assert command_name(other) == "sleep"
    assert daemon.ctl("stop", "s").returncode == 0
    wait_until(lambda: not Path(f"/proc/{other}").exists(), "the end of what was left behind")


def test_dependencies_start_first_and_stop_last(spawnd: Start, program: Program, folder: Path) -> None:
    script = program(
        "ordered",
        NOTIFY
        + """
import signal
name = sys.argv[1]
def note(what):
    with open(os.path.join(sys.argv[2], "order"), "a") as file:
        file.write(f"{what} {name}\\n")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
note("start")
say("READY=1")
signal.sigwait([signal.SIGTERM])
note("stop")
""",
    )
    (folder / "out" / "order").touch()
    (folder / "out" / "order").chmod(0o666)
    line = '{name} = {{ exec = "{script}", arg = {{ "{name}", "{out}" }}, ready = "notify"{more} }}\n'
    out = folder / "out"
    daemon = spawnd(
        line.format(name="web", script=script, out=out, more=', depends = { "app" }')
        + line.format(name="app", script=script, out=out, more=', depends = "db", after = { "cache" }')
        + line.format(name="cache", script=script, out=out, more="")
        + line.format(name="db", script=script, out=out, more="")
    )
    daemon.wait_state("web", "running")
    assert daemon.stop() == 0
    lines = (out / "order").read_text().splitlines()
    started = [line.split()[1] for line in lines if line.startswith("start")]
    stopped = [line.split()[1] for line in lines if line.startswith("stop")]
    assert set(started[:2]) == {"db", "cache"}
    assert started[2:] == ["app", "web"]
    assert stopped[:2] == ["web", "app"]
    assert set(stopped[2:]) == {"db", "cache"}


def test_what_depends_on_a_failed_service_waits_and_starts_once_it_is_up(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(
        f"""
        db = {{ exec = "/bin/sh", arg = {{ "-c", "test -e @/out/flag && exec sleep 100000" }},
                env = {{ PATH = "/bin:/usr/bin" }}, start_limit = 1, ready = "exec" }}
        app = {{ {SLEEP}, depends = {{ "db" }}, status = "stop" }}
        """
    )
    daemon.wait_state("db", "failed")
    result = daemon.ctl("start", "app", "--no-wait")
    assert result.returncode == 0
    wait_until(lambda: daemon.log().count("db: failed") == 2, "db to fail again")
    (folder / "out" / "flag").touch()
    assert daemon.ctl("start", "db").returncode == 0
    daemon.wait_state("app", "running")


def test_ready_fd_and_its_time_out(spawnd: Start, program: Program, folder: Path) -> None:
    ready = program(
        "ready", '#!/bin/sh\nwhile ! test -e "$2"; do sleep 0.05; done\neval "echo >&$1"\nexec sleep 100000\n'
    )
    env = 'env = { PATH = "/bin:/usr/bin" }'
    daemon = spawnd(
        f"""
        good = {{ exec = "{ready}", arg = {{ "3", "@/out/go" }}, ready = "fd", {env} }}
        after_good = {{ {SLEEP}, depends = {{ "good" }} }}
        late = {{ {SLEEP}, ready = "fd", start_timeout = "300ms", start_limit = 1 }}
        """
    )
    assert daemon.state("good") == "starting"
    assert daemon.state("after_good") == "waiting"
    (folder / "out" / "go").touch()
    daemon.wait_state("after_good", "running")
    daemon.wait_state("late", "failed")
    assert "late: failed: not ready after " in daemon.log()


def test_notify_status_reload_and_watchdog(spawnd: Start, program: Program) -> None:
    script = program(
        "notifies",
        NOTIFY
        + """
import signal
def reload(*_):
    say("RELOADING=1\\nSTATUS=reloading")
    time.sleep(0.2)
    say("READY=1\\nSTATUS=reloaded")
signal.signal(signal.SIGHUP, reload)
assert os.environ["WATCHDOG_USEC"] == "3000000" and os.environ["WATCHDOG_PID"] == str(os.getpid())
say("READY=1\\nSTATUS=up")
stop_feeding = []
signal.signal(signal.SIGUSR1, lambda *_: stop_feeding.append(1))
while True:
    if not stop_feeding:
        say("WATCHDOG=1")
    time.sleep(0.1)
""",
    )
    # on a busy machine it may have run for a second by then, and a healthy one would be started again
    more = 'healthy_after = "1h", start_limit = 1'
    daemon = spawnd(f's = {{ exec = "{script}", ready = "notify", watchdog = "3s", reload_signal = "HUP", {more} }}')
    daemon.wait_state("s", "running")
    assert "up" in daemon.ctl("status", "s").stdout
    assert daemon.ctl("reload", "s").returncode == 0
    wait_until(lambda: "reloaded" in daemon.ctl("status", "s").stdout, "the reload")
    assert daemon.state("s") == "running"
    assert daemon.services()["s"]["restarts"] == 0
    assert daemon.ctl("signal", "USR1", "s").returncode == 0
    daemon.wait_state("s", "failed")
    assert "watchdog missed; killed by ABRT" in daemon.log()


def test_stop_time_out_kills(spawnd: Start, program: Program) -> None:
    script = program("stubborn", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
    daemon = spawnd(f's = {{ exec = "{script}", env = {{ PATH = "/bin:/usr/bin" }}, stop_timeout = "300ms" }}')
    daemon.wait_state("s", "running")
    begun = time.monotonic()
    assert daemon.ctl("stop", "s").returncode == 0
    assert 0.3 <= time.monotonic() - begun < 9
    assert daemon.services()["s"]["pid"] is None


@pytest.mark.parametrize(
    ("keys", "status", "state"),
    [
        ("task = true", 0, "done"),
        ("task = true", 3, "failed"),
        ('restart = "never"', 0, "stopped"),
        ('restart = "never"', 3, "failed"),
        ('restart = "on-failure"', 0, "stopped"),
        ('restart = "on-failure", start_limit = 2, backoff = { first = "10ms" }', 3, "failed"),
    ],
)
def test_how_an_end_counts(spawnd: Start, keys: str, status: int, state: str) -> None:
    daemon = spawnd(f's = {{ exec = "/bin/sh", arg = {{ "-c", "exit {status}" }}, {keys} }}')
    daemon.wait_state("s", state)
    assert f"exited with status {status}" in daemon.log()


def test_a_task_satisfies_what_depends_on_it_once_it_is_done(spawnd: Start) -> None:
    daemon = spawnd(
        f"""
        app = {{ {SLEEP}, depends = {{ "prepare" }} }}
        prepare = {{ exec = "/bin/sleep", arg = {{ "0.5" }}, task = true }}
        """
    )
    assert daemon.state("app") == "waiting"
    daemon.wait_state("app", "running")
    assert daemon.state("prepare") == "done"


def test_a_task_that_a_signal_ended_is_not_done(spawnd: Start) -> None:
    """A daemon that TERM ends has ended well; a task has not finished."""
    daemon = spawnd(f'task = {{ {SLEEP}, task = true }}\napp = {{ {SLEEP}, depends = "task" }}')
    os.kill(daemon.wait_running("task"), signal.SIGTERM)
    daemon.wait_state("task", "failed")
    assert daemon.state("app") == "waiting"
    assert daemon.services()["task"]["reason"].startswith("killed by TERM")


def test_what_is_starting_is_not_asked_to_reload(spawnd: Start) -> None:
    """It may not have its handler yet, and a reload ends nothing."""
    daemon = spawnd(f's = {{ {SLEEP}, ready = "notify", reload_signal = "HUP" }}')
    pid = daemon.wait_pid("s")
    result = daemon.ctl("reload", "s")
    assert (result.returncode, result.stderr) == (1, "s: starting: it is still starting\n")
    assert daemon.pid_of("s") == pid


def test_conflicts_start_of_one_stops_the_other(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP} }}\nb = {{ {SLEEP}, conflicts = {{ "a" }}, status = "stop" }}')
    daemon.wait_state("a", "running")
    assert "Not running b" in daemon.log()
    assert daemon.ctl("start", "b").returncode == 0
    assert (daemon.state("a"), daemon.state("b")) == ("stopped", "running")
    assert daemon.ctl("start", "a").returncode == 0
    assert (daemon.state("a"), daemon.state("b")) == ("running", "stopped")


def test_check_command_decides_on_a_start_and_a_reload(spawnd: Start, folder: Path) -> None:
    check = 'check = { "/bin/sh", "-c", "test -e @/out/fine" }'
    daemon = spawnd(f's = {{ {SLEEP}, {check}, start_limit = 1, reload_signal = "WINCH" }}')
    daemon.wait_state("s", "failed")
    assert "check failed: exited with status 1" in daemon.log()
    (folder / "out" / "fine").touch()
    assert daemon.ctl("start", "s").returncode == 0
    pid = daemon.wait_pid("s")
    assert daemon.ctl("reload", "s").returncode == 0
    (folder / "out" / "fine").unlink()
    result = daemon.ctl("reload", "s")
    assert result.returncode == 1
    assert "check failed" in result.stderr
    assert daemon.pid_of("s") == pid


def test_handover_signal_at_a_restart_and_stop_signal_at_a_stop(spawnd: Start, program: Program, folder: Path) -> None:
    script = program(
        "hands_over",
        f"#!/bin/sh\ntrap 'echo handover >> {folder}/out/said; exit 0' USR1\n"
        f"trap 'echo stop >> {folder}/out/said; exit 0' INT\n"
        f"touch {folder}/out/trapped\nwhile :; do sleep 0.05; done\n",
    )
    env = 'env = { PATH = "/bin:/usr/bin" }'
    daemon = spawnd(f's = {{ exec = "{script}", {env}, handover_signal = "USR1", stop_signal = "INT" }}')
    said = folder / "out" / "said"
    wait_until((folder / "out" / "trapped").exists, "the traps")
    (folder / "out" / "trapped").unlink()
    assert daemon.ctl("restart", "s").returncode == 0
    wait_until((folder / "out" / "trapped").exists, "the traps of the second process")
    assert daemon.ctl("stop", "s").returncode == 0
    assert said.read_text() == "handover\nstop\n"


def test_restart_signals(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP}, restart_signal = "RTMIN+5" }}\nb = {{ {SLEEP} }}')
    first, other = daemon.wait_pid("a"), daemon.wait_pid("b")
    daemon.signal(signal.SIGRTMIN + 5)
    daemon.wait_pid("a", other_than=first)
    daemon.signal(signal.SIGRTMIN + 6)
    daemon.wait_log("RTMIN+6: no service has it")
    assert daemon.pid_of("b") == other


def test_orphans_are_reaped(spawnd: Start, program: Program) -> None:
    script = program("daemonizes", "#!/bin/sh\n(setsid sleep 0.2 &)\n(setsid sleep 0.1 &)\nexec sleep 100000\n")
    daemon = spawnd(f's = {{ exec = "{script}", env = {{ PATH = "/bin:/usr/bin" }} }}')
    pid = daemon.wait_pid("s")
    wait_until(lambda: command_name(pid) == "sleep", "exec")
    wait_until(lambda: children(daemon.pid) == [pid], "the orphans' end")


def test_states_are_written_to_the_log_on_usr2(spawnd: Start) -> None:
    daemon = spawnd(f's = {{ {SLEEP} }}\nt = {{ {SLEEP}, status = "stop" }}')
    pid = daemon.wait_running("s")
    daemon.signal(signal.SIGUSR2)
    daemon.wait_log("t: stopped")
    assert f", pid {pid}: running" in daemon.log()
