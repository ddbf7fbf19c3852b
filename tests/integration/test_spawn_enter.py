"""`spawn-enter`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.daemon import BIN, children, command_name, wait_until
from tests.unit.process.requirements import needs_root
from tests.unit.workers.accessory.inode import inodes

pytestmark = needs_root
LINKS = "readlink /proc/self/ns/ipc /proc/self/ns/pid /proc/self/ns/user"


@pytest.fixture
def daemon(accessory: AccessoryDaemon) -> AccessoryDaemon:
    return accessory


def command(daemon: AccessoryDaemon, *arguments: str) -> list[str]:
    return [str(BIN / "spawn-enter"), "--address", daemon.address, *arguments]


def enter(daemon: AccessoryDaemon, *arguments: str, shell: str = "/bin/sh", text: str = "") -> tuple[int, str, str]:
    """Exit status, output and errors."""
    env = os.environ | {"SHELL": shell}
    run = subprocess.run(
        command(daemon, *arguments), capture_output=True, text=True, env=env, timeout=30, input=text, check=False
    )
    return run.returncode, run.stdout, run.stderr


def test_all_namespaces_are_those_of_the_name(daemon: AccessoryDaemon) -> None:
    status, out, errors = enter(daemon, "--ipc", "--pid", "--user", "0:0:1", "all", "--", "sh", "-c", LINKS)
    assert (status, errors) == (0, "")
    inside = tuple(int(line.partition("[")[2].rstrip("]")) for line in out.splitlines())
    with daemon.connect() as client:
        assert inodes(client.request("all", ipc=True, pid=True, user=b"0 0 1\n\x000 0 1\n")) == inside


def test_a_pid_namespace_has_a_proc_of_its_own(daemon: AccessoryDaemon) -> None:
    status, out, _ = enter(daemon, "--pid", "a", "--", "cat", "/proc/1/comm")
    assert (status, out) == (0, "init-a\n")
    assert Path("/proc/1/comm").read_text() != "init-a\n"  # ours stays as it is


def test_in_a_user_namespace_it_is_the_first_that_the_map_has(daemon: AccessoryDaemon) -> None:
    status, out, _ = enter(daemon, "--user", "7 1000 5/9 2000 5,100:100:1", "mapped", "--", "sh", "-c", "id -u; id -g")
    assert (status, out) == (0, "7\n9\n")


def test_a_shell_is_run_where_nothing_is_said(daemon: AccessoryDaemon) -> None:
    assert enter(daemon, "--ipc", "a", text="echo it reads; exit 3\n") == (3, "it reads\n", "")


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_passed_on(daemon: AccessoryDaemon, status: int) -> None:
    assert enter(daemon, "--pid", "a", "--", "sh", "-c", f"exit {status}")[0] == status


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_so_is_the_signal_that_ended_it(daemon: AccessoryDaemon, signum: int) -> None:
    assert enter(daemon, "--pid", "a", "--", "sh", "-c", f"kill -{signum} $$")[0] == -signum


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_passed_on_to_it(daemon: AccessoryDaemon, signum: int) -> None:
    script = f"trap 'echo caught; exit 9' {signum}; echo ready; while :; do sleep 0.02; done"
    inside = command(daemon, "--ipc", "--pid", "a", "--", "sh", "-c", script)
    with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signum)
        assert run.stdout.read() == "caught\n"
        assert run.wait(30) == 9


def test_it_holds_a_lease_as_long_as_it_runs(folder: Path) -> None:
    with accessory_daemon(folder, expiry="100ms") as daemon:
        with subprocess.Popen(command(daemon, "--ipc", "a", "--", "cat"), stdin=subprocess.PIPE) as run:
            wait_until(lambda: [command_name(pid) for pid in children(run.pid)] == ["cat"], "the command")
            fds = f"/proc/{children(run.pid)[0]}/fd"
            wait_until(lambda: os.listdir(fds) == ["0", "1", "2"], "its libraries")
            with daemon.connect() as client:
                first = inodes(client.request("a", ipc=True))
                client.request("other", ipc=True).close()
                wait_until(lambda: '"other"' not in daemon.ctl("call", "accessory", "List").stdout, "its end")
                assert inodes(client.request("a", ipc=True)) == first
            assert run.stdin is not None
            run.stdin.close()
        wait_until(lambda: '"a"' not in daemon.ctl("call", "accessory", "List").stdout, "the end of the name")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a"], 2, "nothing to enter"),
        (["--ipc"], 2, "NAME"),
        (["--ipc", "a\n"], 2, "NAME has to be"),
        (["--user", "0:0", "a"], 2, "INSIDE:OUTSIDE:COUNT"),
        (["--user", "0:0:0", "a", "--", "true"], 125, "uid_map"),
        (["--ipc", "a", "--", "/no/such/program"], 127, "cannot run '/no/such/program': No such file"),
        (["--ipc", "a", "--", "/etc/passwd"], 126, "cannot run '/etc/passwd': Permission denied"),
    ],
)
def test_what_goes_wrong_is_said(daemon: AccessoryDaemon, arguments: list[str], status: int, message: str) -> None:
    found, out, errors = enter(daemon, *arguments)
    assert (found, out) == (status, "")
    assert message in errors


def test_without_an_accessory() -> None:
    command = [str(BIN / "spawn-enter"), "--address", f"@nobody-{os.getpid()}", "--ipc", "a"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, "Connection refused" in run.stderr) == (125, True)
