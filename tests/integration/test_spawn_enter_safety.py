"""The owner of namespaces reaches nothing but the command when root of the host enters them with `spawn-enter`."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from supervisor.linux.libc import function
from supervisor.linux.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_REC,
    MS_SLAVE,
    mount,
    setns,
    unshare,
)
from tests.accessory import AccessoryDaemon
from tests.daemon import BIN
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import child_process, read_until
from workers.accessory.client import Namespaces

pytestmark = needs_root
MAP = "0:100000:65536"
MAPS = b"0 100000 65536\n\x000 100000 65536\n"
RUNS = 15
COMMAND = "/bin/true"
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000
_ptrace = function("ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


@pytest.fixture
def daemon(accessory: AccessoryDaemon) -> AccessoryDaemon:
    return accessory


def enter(daemon: AccessoryDaemon, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status, output and errors."""
    command = [str(BIN / "spawn-enter"), "--address", daemon.address, *arguments]
    run = subprocess.run(
        command, text=True, env=os.environ | environment, timeout=60, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return run.returncode, run.stdout


# a tracer


@pytest.mark.parametrize("has_terminal", [False, True], ids=["", "terminal"])
def test_nobody_can_trace_it_before_it_is_the_command(daemon: AccessoryDaemon, has_terminal: bool) -> None:
    name = f"traced-{has_terminal}"
    command = [str(BIN / "spawn-enter"), "--address", daemon.address, "--pid", "--user", MAP, name, "--", COMMAND]
    if has_terminal:
        command = ["script", "--quiet", "--return", "--command", " ".join(command), "/dev/null"]
    with (
        daemon.connect() as client,
        client.request(name, pid=True, user=MAPS, lease=True) as held,
        tracer(held) as told,
    ):
        for _ in range(RUNS):
            run = subprocess.run(
                command, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                check=False,
            )  # fmt: skip
            assert (run.returncode, run.stderr) == (0, b"")
        os.set_blocking(told, False)
        seen = []
        with suppress(BlockingIOError):
            seen = os.read(told, 65536).decode().split()
    assert set(seen) <= {os.path.realpath(COMMAND)}


@contextmanager
def tracer(namespaces: Namespaces) -> Iterator[int]:
    """The tenant's root in its own namespaces traces every process that it can; where it tells what they execute."""
    read_end, write_end = os.pipe()
    with child_process(lambda: trace_in(namespaces, write_end)):
        os.close(write_end)
        read_until(read_end, lambda data: b"ready" in data)
        yield read_end
    os.close(read_end)


def trace_in(namespaces: Namespaces, told: int) -> None:
    setns(namespaces.pid, CLONE_NEWPID)
    with child_process(lambda: trace_inside(namespaces, told)) as pid:
        os.waitpid(pid, 0)


def trace_inside(namespaces: Namespaces, told: int) -> None:
    unshare(CLONE_NEWNS)
    mount("none", "/", "", MS_REC | MS_SLAVE)
    mount("proc", "/proc", "proc", 0)
    last_pid = os.open("/proc/sys/kernel/ns_last_pid", os.O_RDONLY)
    setns(namespaces.user, CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.write(told, b"ready\n")
    seen: set[str] = set()
    while True:
        last = int(os.pread(last_pid, 32, 0))
        for pid in range(max(2, last - 1), last + 3):
            if pid != os.getpid() and _ptrace(PTRACE_SEIZE, pid, None, None) == 0:
                look_at(pid, seen, told)


def look_at(pid: int, seen: set[str], told: int) -> None:
    """Stop a process that is traced now, tell what it executes, and let it go on, traced by nobody.

    Each program is told once.  A process is caught hundreds of times: with a line for each the pipe was full after
    some runs, and the command stayed stopped while its tracer waited for room.
    """
    _ptrace(PTRACE_INTERRUPT, pid, None, None)
    if os.WIFSTOPPED(os.waitpid(pid, WALL)[1]):
        with suppress(FileNotFoundError):
            program = os.readlink(f"/proc/{pid}/exe")
            if program not in seen:
                seen.add(program)
                os.write(told, f"{program}\n".encode())
        _ptrace(PTRACE_DETACH, pid, None, None)


# what it is given


def test_the_environment_is_its_own(daemon: AccessoryDaemon) -> None:
    caller = {"SECRET": "of the caller", "TERM": "dumb", "LC_TIME": "C", "PASSED": "with = in it"}
    wanted = ("--env", "A=1=2", "--env", "PASSED", "--env", "NONE")
    status, out = enter(daemon, "--ipc", *wanted, "a", "--", "env", **caller)
    found = dict(line.split("=", 1) for line in out.splitlines())
    assert status == 0
    assert found.pop("PATH").endswith(":/bin")
    assert not set(found) - {"TERM", "LANG", "LANGUAGE", "COLORTERM", "TZ", "LC_TIME", "LC_ALL", "LC_CTYPE"} - {
        "HOME", "USER", "LOGNAME", "SHELL", "A", "PASSED",
    }  # fmt: skip
    assert (found["A"], found["PASSED"], found["TERM"], found["LC_TIME"]) == ("1=2", "with = in it", "dumb", "C")
    assert (found["HOME"], found["USER"]) == ("/root", "root")


def test_the_folder_is_its_own_and_a_relative_program_the_callers(
    daemon: AccessoryDaemon, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "prog"
    program.write_text("#!/bin/sh\npwd; echo $0\n")
    program.chmod(0o755)
    monkeypatch.chdir(folder)
    assert enter(daemon, "--ipc", "a", "--", "./prog") == (0, f"/\n{program}\n")
    assert enter(daemon, "--ipc", "--cwd", "out", "a", "--", "./prog") == (0, f"{folder}/out\n{program}\n")
    status, out = enter(daemon, "--ipc", "--cwd", "/no/such", "a", "--", "pwd")
    assert (status, "cannot change to the directory '/no/such': No such file" in out) == (125, True)


def test_the_folder_is_entered_with_the_rights_of_its_user(daemon: AccessoryDaemon, folder: Path) -> None:
    private = folder / "private"
    private.mkdir(0o700)
    status, out = enter(daemon, "--pid", "--user", MAP, "--cwd", str(private), "mapped", "--", "pwd")
    assert (status, "Permission denied" in out) == (125, True)


def test_no_descriptor_comes_along(daemon: AccessoryDaemon) -> None:
    script = f"{BIN / 'spawn-enter'} --address {daemon.address} --ipc a -- ls /proc/self/fd 7</etc/shadow </dev/null"
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


def test_the_session_is_its_own(daemon: AccessoryDaemon) -> None:
    keyring = "import ctypes; print(ctypes.CDLL(None).syscall(250, 0, -3, 0))" if os.uname().machine == "x86_64" else ""
    script = "umask; ps -o pid=,sid= -p $$ | awk '{print $1 == $2}'; " + (f"python3 -c '{keyring}'" if keyring else "")
    status, out = enter(daemon, "--ipc", "a", "--", "sh", "-c", script)
    lines = out.splitlines()
    assert (status, lines[:2]) == (0, ["0022", "1"])
    if keyring:
        assert lines[2] != str(ctypes.CDLL(None).syscall(250, 0, -3, 0))


# the start


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1], [0, 1, 2]], ids=str)
def test_a_closed_descriptor_is_nothing_of_ours(daemon: AccessoryDaemon, folder: Path, closed: list[int]) -> None:
    """The lowest numbers are opened first: the socket, namespaces, the lease."""
    out = folder / "links"
    script = f'found=$(for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done); echo "$found" > {out}'
    words = [str(BIN / "spawn-enter"), "--address", daemon.address, "--ipc", "a", "--", "sh", "-c", script]

    def close() -> None:
        for fd in closed:
            os.close(fd)

    assert subprocess.run(words, preexec_fn=close, timeout=60, check=False).returncode == 0
    found = out.read_text().splitlines()
    assert [found[fd] for fd in closed] == [os.devnull] * len(closed)


def test_an_interrupt_before_there_is_an_answer() -> None:
    """Ends it as it ends others, without a traceback."""
    address = f"@silent-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind("\0" + address[1:])
        server.listen()
        command = [str(BIN / "spawn-enter"), "--address", address, "--ipc", "a"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
            connection = server.accept()[0]
            assert connection.recv(1000)
            run.send_signal(signal.SIGINT)
            assert (run.wait(60), run.stderr and run.stderr.read()) == (-signal.SIGINT, b"")
            connection.close()


def test_what_is_ignored_stays_so(daemon: AccessoryDaemon) -> None:
    """As nohup(1) has it, and whatever a shell in the background ignores."""
    script = "grep SigIgn /proc/self/status"
    command = [str(BIN / "spawn-enter"), "--address", daemon.address, "--ipc", "a", "--", "sh", "-c", script]
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)

    def ignore() -> None:
        for signum in ignored:
            signal.signal(signum, signal.SIG_IGN)

    run = subprocess.run(command, preexec_fn=ignore, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0
    mask = int(run.stdout.split()[1], 16)
    assert [signum for signum in ignored if mask & 1 << signum - 1] == [signal.SIGHUP, signal.SIGINT]


def test_who_did_not_answer_is_said(daemon: AccessoryDaemon) -> None:
    command = [str(BIN / "spawn-enter"), "--address", "@nobody-is-here", "--ipc", "a"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 125
    cause = os.strerror(errno.ECONNREFUSED)
    assert f"cannot ask the accessory at '@nobody-is-here': {cause} (see `spawnctl status accessory`" in run.stderr


def test_usage_says_that_a_command_is_optional() -> None:
    run = subprocess.run([str(BIN / "spawn-enter")], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "NAME [COMMAND ...]" in run.stderr
    assert run.stderr.endswith("the following arguments are required: NAME\n")
