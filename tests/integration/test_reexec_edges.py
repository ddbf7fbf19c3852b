"""An exec that fails or that something crosses: a version that does not work or is slow, what is under way."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from tests.daemon import PATIENCE, Daemon, children, start_time, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, links
from tests.integration.test_bad_input import needs_root
from tests.integration.test_life import NOTIFY, SLEEP
from tests.integration.test_loss import QUICK
from tests.integration.test_reexec import OBSTINATE, background, ends_well, reexec
from tests.integration.test_reload_edges import ENV, tcp
from tests.integration.versions import install
from tests.ports import free_port

Program = Callable[[str, str], str]
TRIAL = "supervisor.takeover.reexec"


def refused(daemon: Daemon) -> str:
    """Why the old version goes on, as its operator is told and its log says."""
    result = daemon.ctl("reexec")
    assert result.returncode == 1, result.stdout
    problem = result.stderr.strip().partition("not executed anew: ")[2]
    assert problem, result.stderr
    daemon.wait_log(f"not executed anew: {problem}")
    return problem


# versions that do not work


FAILING = [
    ("print('not today', file=sys.stderr); sys.exit(3)", "", "not today exited with status 3"),
    ("if trial: raise ValueError('trial')", "", "ValueError: trial exited with status 1"),
    ("", "import supervisor.state.state as s; s.FORMAT = 7", "exited with status 1"),
    ("", "import supervisor.manager.unit as u; u.Unit = None", "exited with status 1"),
    ("if trial: os.kill(os.getpid(), 9)", "", "killed by KILL"),
    ("if trial: os.abort()", "", "killed by ABRT"),
]


def test_versions_that_fail_their_trial(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP}, {QUICK} }}")
    pid = daemon.wait_running("a")
    before = links(daemon.pid)
    for first, then, why in FAILING:
        install(folder, first, then)
        assert why in refused(daemon), first or then
        assert daemon.pid_of("a") == pid, first or then
        wait_until(lambda: len(links(daemon.pid)) == len(before), f"nothing is left of the trial: {first or then}")
        assert children(daemon.pid) == [pid], first or then
    os.kill(pid, signal.SIGKILL)
    second = daemon.wait_running("a", other_than=pid)
    install(folder)
    reexec(daemon)
    assert daemon.pid_of("a") == second


def test_a_version_that_hangs_is_killed(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP} }}")
    install(folder, then=f"import {TRIAL}; {TRIAL}.TRIAL_LIMIT = 1.0")
    pid = daemon.wait_running("a")
    reexec(daemon)
    install(folder, "signal = __import__('signal'); signal.signal(15, signal.SIG_IGN); time.sleep(1000)")
    assert refused(daemon) == "not ready after 1 s"
    assert children(daemon.pid) == [pid]
    assert daemon.pid_of("a") == pid


def test_a_version_that_cannot_be_executed(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    (folder / "spawnd").chmod(0o644)
    assert "Permission denied" in refused(daemon)
    (folder / "spawnd").write_text("#!/nonexistent/python\n")
    (folder / "spawnd").chmod(0o755)
    assert "No such file or directory" in refused(daemon)
    (folder / "spawnd").unlink()
    assert "No such file or directory" in refused(daemon)
    assert daemon.pid_of("a") == pid
    install(folder)
    reexec(daemon)


def test_a_version_that_vanishes_after_its_trial(version: Start, folder: Path) -> None:
    """All that was done for the exec is undone."""
    daemon = version(f'a = {{ {SLEEP}, {QUICK}, {tcp(free_port())}, restart_signal = "RTMIN+1" }}')
    pid = daemon.wait_running("a")
    before = links(daemon.pid)
    for _ in range(3):
        install(folder, "if trial: os.unlink(sys.argv[0])")
        assert "No such file or directory" in refused(daemon)
    assert daemon.pid_of("a") == pid
    wait_until(lambda: len(links(daemon.pid)) == len(before), "nothing is left of it")
    blocked = Path(f"/proc/{daemon.pid}/status").read_text().partition("SigBlk:\t")[2].split()[0]
    assert int(blocked, 16) == 0
    daemon.signal(signal.SIGRTMIN + 1)
    second = daemon.wait_running("a", other_than=pid)
    sockets = [link for link in links(second).values() if link.startswith("socket:")]
    assert len(sockets) == 1, "it has its own and nothing that was to go over the exec"
    os.kill(second, signal.SIGKILL)
    daemon.wait_running("a", other_than=second)
    install(folder)
    reexec(daemon)


def test_a_version_that_breaks_after_its_trial_is_a_loss(version: Start, folder: Path) -> None:
    daemon = version(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    install(folder, "if resumes and not trial: raise ValueError('surprise')")
    daemon.remember(pids.values())
    assert daemon.ctl("reexec").returncode != 0
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    assert all(map(alive, pids.values()))
    install(folder)
    daemon.again()
    assert {name: row["pid"] for name, row in daemon.services().items()} == pids


# the trial beside the one that goes on


def trial_of(daemon: Daemon, *services: int) -> int:
    """The pid of the trial child once it waits, and has no socket open any more."""

    def find() -> int | None:
        for child in set(children(daemon.pid)) - {*services}:
            if not any("socket:" in link for link in links(child).values()):
                return child
        return None

    pid = wait_until(find, "the trial")
    assert pid is not None
    return pid


def test_what_is_closed_during_a_trial_is_closed(version: Start, folder: Path) -> None:
    port = free_port()
    daemon = version(f"a = {{ {SLEEP}, {tcp(port)} }}\nb = {{ {SLEEP} }}")
    pids = [daemon.wait_running(name) for name in "ab"]
    install(folder, then="import supervisor.main; supervisor.main.TRIAL_TIME = 4.0")
    with background(daemon, "reexec") as ctl:
        trial = trial_of(daemon, *pids)
        assert daemon.ctl("stop", "a").returncode == 0
        with socket.socket() as mine:
            mine.bind(("127.0.0.1", port))
        assert alive(trial), "it was still there"
        ends_well(ctl)
    assert daemon.state("a") == "stopped"
    assert daemon.state("b") == "running"


@pytest.mark.parametrize("early", [False, True])
def test_a_trial_does_not_outlive_spawnd(version: Start, folder: Path, early: bool) -> None:
    """It would keep the lock, and nobody would be there to end it."""
    daemon = version(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    install(folder, "if trial: time.sleep(1000)" if early else "")
    with background(daemon, "reexec"):
        trial = wait_until(lambda: [child for child in children(daemon.pid) if child != pid], "the trial")[0]
        started = start_time(trial)
        assert daemon.process is not None
        daemon.remember([pid])
        daemon.process.kill()
        daemon.process.wait()
        wait_until(lambda: start_time(trial) != started, "the end of the trial")
    install(folder)
    daemon.again()
    assert daemon.pid_of("a") == pid


def test_a_trial_leaves_notification_sockets_alone(version: Start, program: Program, folder: Path) -> None:
    script = program(
        "feeds", NOTIFY + 'say("READY=1")\nwhile True:\n    say("STATUS=" + str(time.time()))\n    time.sleep(0.01)\n'
    )
    daemon = version(f's = {{ exec = "{script}", ready = "notify", start_limit = 1, healthy_after = "1h" }}')
    daemon.wait_running("s")
    (path,) = (daemon.runtime / "notify").glob("s.*/s")
    inode = path.stat().st_ino
    reexec(daemon)
    assert path.stat().st_ino == inode
    assert daemon.state("s") == "running", "it would have failed if nobody had been there to be told"


# what is under way


def test_a_reload_of_the_definitions_comes_first(version: Start) -> None:
    text = f"a = {{ {SLEEP} }}"
    daemon = version(text)
    pid = daemon.wait_running("a")
    daemon.definitions.write_text(f"local x = 0\nfor i = 1, 2e7 do x = x + i end\n{text}\nb = {{ {SLEEP} }}")
    daemon.signal(signal.SIGUSR1)
    daemon.wait_log("trying")
    wait_until(lambda: _asks_to_reload_until_executed(daemon), "the exec", pause=0.05)
    daemon.wait_running("b")
    assert daemon.pid_of("a") == pid


def _asks_to_reload_until_executed(daemon: Daemon) -> bool:
    daemon.signal(signal.SIGHUP)
    return "executed anew" in daemon.log()


def test_a_check_of_the_definitions_is_answered(version: Start, folder: Path) -> None:
    daemon = version(f"local x = 0\nfor i = 1, 2e7 do x = x + i end\na = {{ {SLEEP} }}")
    daemon.wait_running("a")
    install(folder)
    with background(daemon, "reexec") as ctl:
        checks = [background(daemon, "check") for _ in range(3)]
        ends_well(ctl)
        for check in checks:
            ends_well(check)


def test_a_service_that_is_being_asked_to_reload(version: Start, folder: Path) -> None:
    """Its check is made anew; the client that waits is answered once, and the service asked once."""
    check = 'check = { "/bin/sh", "-c", "while test -e @/out/wait; do sleep 0.05; done" }'
    script = "trap 'echo x >> @/out/reloaded' HUP; : > @/out/trapped; while :; do sleep 0.05; done"
    daemon = version(
        f'a = {{ exec = "/bin/sh", arg = {{ "-c", "{script}" }}, {ENV}, {check}, reload_signal = "HUP" }}\n'
        f'b = {{ {SLEEP}, reload_signal = "WINCH" }}'
    )
    daemon.wait_running("a")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    (folder / "out" / "wait").touch()
    with background(daemon, "reload", "a", "b") as ctl:
        daemon.wait_log("reload of a, b")
        reexec(daemon)
        assert ctl.poll() is None
        (folder / "out" / "wait").unlink()
        ends_well(ctl)
    wait_until((folder / "out" / "reloaded").exists, "the reload")
    assert (folder / "out" / "reloaded").read_text() == "x\n"


def test_it_is_refused_while_everything_is_being_stopped(version: Start, program: Program, folder: Path) -> None:
    keys = f'exec = "{program("obstinate", OBSTINATE)}", arg = {{ "@/out" }}, {ENV}, stop_timeout = "10m"'
    daemon = version(f"s = {{ {keys} }}")
    pid = daemon.wait_running("s")
    wait_until((folder / "out" / "trapped").exists, "the trap")
    with background(daemon, "reexec") as ctl:
        daemon.wait_log("trying")
        daemon.signal(signal.SIGTERM)
        daemon.wait_log("s: stopping")
        assert refused(daemon) == "everything is being stopped"
        assert ctl.wait(60) == 1, "also one that was asked for before"
    (folder / "out" / f"end-{pid}").touch()
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE) == 0
    assert "executed anew, with" not in daemon.log()


# what spawnd was started with


def test_systemd_is_told(version: Start, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "systemd"))
        systemd.settimeout(60)

        def told() -> bytes:
            """The next word that is not a status alone."""
            while (message := systemd.recv(999)).startswith(b"STATUS="):
                pass
            return message

        daemon = version(f"a = {{ {SLEEP} }}", env={"NOTIFY_SOCKET": str(folder / "systemd")})
        assert told().startswith(b"READY=1\n")
        for _ in range(2):
            reexec(daemon)
            assert re.match(rb"RELOADING=1\nMONOTONIC_USEC=\d+\n", told())
            assert told().startswith(b"READY=1\n")
        install(folder, "if trial: os.unlink(sys.argv[0])")
        assert "No such file" in refused(daemon)
        assert told().startswith(b"RELOADING=1\n")
        assert told().startswith(b"READY=1\n")
        pid = daemon.wait_running("a")
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        install(folder)
        reexec(daemon)


@needs_root
def test_a_log_that_goes_to_syslog_goes_on_there(folder: Path) -> None:
    """spawnd has found its stderr closed; in the next life it is open, and leads to nowhere."""
    dev = folder / "dev"
    dev.mkdir()
    for name, number in (("null", 3), ("zero", 5), ("urandom", 9)):
        try:
            os.mknod(dev / name, 0o020666, os.makedev(1, number))
        except PermissionError:
            pytest.skip("this root may not make devices")
        (dev / name).chmod(0o666)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(dev / "log"))
        syslog.settimeout(60)
        said: list[bytes] = []

        def read() -> None:
            """At once: a datagram socket holds ten of them, and spawnd waits for nobody."""
            while not said or b"all services have stopped" not in said[-1]:
                said.append(syslog.recv(9999))

        reader = Thread(target=read, daemon=True)
        reader.start()
        daemon = Daemon(folder, f"a = {{ {SLEEP} }}")
        daemon.program = install(folder)
        daemon.prefix = [
            "unshare", "--mount", "--propagation", "private", "sh", "-c",
            f'mount --bind {dev} /dev && exec "$@" 2>&-', "sh",
        ]  # fmt: skip
        with daemon:
            pid = daemon.wait_running("a")
            for _ in range(2):
                result = daemon.ctl("reexec")
                assert result.returncode == 0, result.stderr
                assert daemon.pid_of("a") == pid
            assert links(daemon.pid)[2] == "/dev/null"
            assert daemon.stop() == 0
        reader.join(20)
        assert b"all services have stopped" in said[-1]
        assert sum(b"executed anew" in line for line in said) == 2
        assert all(line.startswith(b"<") and b"spawnd[%d]: " % daemon.pid in line for line in said)
    assert daemon.log() == ""


@pytest.mark.parametrize("how", ["script", "module"])
def test_a_program_that_needs_an_interpreter(folder: Path, how: str) -> None:
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}")
    daemon.program = install(folder)
    (folder / "spawnd").chmod(0o644)
    daemon.prefix = [sys.executable]
    if how == "module":
        (folder / "spawnd").rename(folder / "installed.py")
        # -P, or the checkout that the tests run in would take the place of what is installed
        daemon.prefix = ["env", f"PYTHONPATH={folder}", sys.executable, "-P", "-m"]
        daemon.program = "installed"
    with daemon:
        pid = daemon.wait_running("a")
        reexec(daemon)
        assert daemon.pid_of("a") == pid
    assert not alive(pid)
