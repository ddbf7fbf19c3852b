"""Faults around a supervisor: each has a clear message, disturbs no running service, and leaves nothing behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.changes.evaluation import OVERTIME
from tests.daemon import BIN, PATIENCE, Daemon, children, wait_until
from tests.integration.conftest import Start
from tests.integration.versions import install

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, users")


def fill(path: Path) -> None:
    """Make a file that takes all the room of its file system, to the last byte."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1024, 1):
            with pytest.raises(OSError, match="No space left"):
                write_for_ever(fd, size)
    finally:
        os.close(fd)


def write_for_ever(fd: int, size: int) -> None:
    while True:
        os.write(fd, b"\n" * size)


# With other work on the machine, some seconds of processor time may be more than half a minute, which is a limit, too.
SHORT_LIMIT = "import supervisor.changes.evaluation; supervisor.changes.evaluation.CHILD_TIME_LIMIT = 0.5"


def check(*paths: str | Path, strict: bool = False, program: str = "") -> subprocess.CompletedProcess[str]:
    config = [word for path in paths for word in ("--config", str(path))]
    command = [program or str(BIN / "spawnd"), "--check", *(["--strict"] if strict else []), *config]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_check_of_good_definitions(folder: Path) -> None:
    (folder / "a.lua").write_text(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\n")
    result = check(folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, "OK: 2 services\n", "")


def test_check_prints_all_errors_of_all_files(folder: Path) -> None:
    (folder / "a.lua").write_text(f"a = {{ {SLEEP},\n umaks = '022' }}\nb = {{ exec = 'sleep' }}\n")
    (folder / "b.lua").write_text("c = = 1\n")
    (folder / "c.lua").write_text(f"d = {{ {SLEEP}, user = 'no-such-user-here' }}\n")
    result = check(folder)
    assert result.returncode == 78
    lines = (result.stdout + result.stderr).splitlines()
    for beginning in ("a.lua:2: ", "a.lua:3: ", "b.lua:1: "):
        assert any(line.startswith(f"{folder}/{beginning}") for line in lines), lines
    if os.geteuid() == 0:
        assert any("c.lua:1: d: " in line and "no-such-user-here" in line for line in lines)


def redirected(redirection: str, *command: str) -> tuple[int, str]:
    """Run a command without a reader of its standard output; return the exit status, and what stderr has."""
    reading, writing = os.pipe()
    os.close(reading)
    shell = ["/bin/sh", "-c", f'exec "$0" "$@" {redirection}', str(BIN / command[0]), *command[1:]]
    try:
        result = subprocess.run(shell, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writing)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("text", "redirection", "expected"),
    [
        ("a = {", "2>/dev/full", (1, "")),
        ("a = {", "2>&1", (141, "")),
        (f"a = {{ {SLEEP} }}", ">/dev/full", (1, "spawnd: cannot write: No space left on device\n")),
        (f"a = {{ {SLEEP} }}", "", (141, "")),
        (f"a = {{ {SLEEP} }}", ">&-", (0, "")),
    ],
)
def test_check_that_cannot_say_anything_ends(
    folder: Path, text: str, redirection: str, expected: tuple[int, str]
) -> None:
    (folder / "a.lua").write_text(text)
    assert redirected(redirection, "spawnd", "--check", "--config", str(folder)) == expected


@pytest.mark.parametrize(
    "command",
    [
        ("spawnd", "--help"),
        ("spawnd", "--version"),
        ("spawnctl", "--help"),
        ("spawnctl", "--version"),
        ("spawnctl", "help"),
        ("spawn-enter", "--help"),
    ],
    ids=" ".join,
)
def test_a_help_text_that_cannot_be_written(command: tuple[str, ...]) -> None:
    full = (1, f"{command[0]}: cannot write: No space left on device\n")
    assert redirected(">/dev/full", *command) == full
    assert redirected("", *command) == (141, "")
    assert redirected(">&-", *command)[0] == 0


def test_a_relative_path_in_a_removed_folder(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec {BIN / "spawnd"} --check --config services.d'
    result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.endswith("cannot use 'services.d': the present directory was removed\n")


def test_a_start_with_wrong_definitions_starts_nothing(folder: Path) -> None:
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}\nb = {{ {SLEEP}, nice = 'very' }}").start()
    assert daemon.process is not None
    assert daemon.process.wait(20) == 78
    assert "services.lua:2: b: " in daemon.log()
    assert "Starting" not in daemon.log()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("while true do end", "longer than 0.5 s"),
        ('string.find(("a"):rep(30000), (".-"):rep(8) .. "b")', "longer than"),
        ("local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end", "memory"),
        ("-- " + "x" * 10_000_000, "larger than"),
        ("a = { exec = ", "near"),
    ],
)
def test_definitions_that_cannot_be_evaluated(folder: Path, text: str, message: str) -> None:
    (folder / "a.lua").write_text(text)
    result = check(folder / "a.lua", program=install(folder, then=SHORT_LIMIT))
    assert result.returncode == 78
    assert str(folder / "a.lua") in result.stderr
    assert message in result.stderr


def test_a_function_of_a_library_that_never_ends_prevents_a_start_for_good(folder: Path) -> None:
    """No hook is called inside it.  To start again would not help: 78, as with every wrong definition."""
    daemon = Daemon(folder, 'string.find(("a"):rep(30000), (".-"):rep(8) .. "b")')
    daemon.program = install(folder, then=SHORT_LIMIT)
    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE) == 78
    assert f"services.lua:1: {OVERTIME}" in daemon.log()


def test_an_endless_loop_at_a_reload_disturbs_nothing(folder: Path) -> None:
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}")
    daemon.program = install(folder, then=SHORT_LIMIT)
    with daemon:
        pid = daemon.wait_pid("a")
        daemon.definitions.write_text("while true do end")
        daemon.signal(signal.SIGHUP)
        # the loop of spawnd is free meanwhile
        assert daemon.pid_of("a") == pid
        daemon.wait_log("definitions not changed", patience=60)  # processor time, which others want too
        assert daemon.pid_of("a") == pid
        assert children(daemon.pid) == [pid]


def test_missing_and_unreadable_folders(folder: Path) -> None:
    result = check(folder / "missing")
    assert result.returncode == 78
    assert "missing" in result.stderr
    assert "No such file or directory" in result.stderr


def test_an_empty_folder_is_no_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    result = check(folder / "empty")
    assert (result.returncode, result.stdout) == (0, "OK: 0 services, 1 notice\n")
    assert result.stderr == f"{folder}/empty:1: defines no services: they are in files named *.lua\n"
    assert check(folder / "empty", strict=True).returncode == 78


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: tries as another user")
def test_strict_takes_notices_for_errors(folder: Path) -> None:
    """Among them that the user of a service cannot execute its program, which root can."""
    (folder / "private").mkdir(mode=0o700)
    (folder / "private" / "prog").symlink_to("/bin/true")
    (folder / "a.lua").write_text(f'a = {{ exec = "{folder}/private/prog" }}')
    for strict, code, out in ((False, 0, "OK: 1 service, 1 notice\n"), (True, 78, "")):
        result = check(folder / "a.lua", strict=strict)
        assert (result.returncode, result.stdout) == (code, out)
        assert result.stderr == f"{folder}/a.lua:1: a: exec: user 'nobody' cannot execute '{folder}/private/prog'\n"
    (folder / "private").chmod(0o755)
    assert check(folder / "a.lua", strict=True).returncode == 0


def test_a_second_supervisor_on_one_folder(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_pid("a")
    second = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"another supervisor does, pid {daemon.pid}" in second.stderr
    assert daemon.pid_of("a") == pid


def test_a_busy_port_is_named_and_tried_again(spawnd: Start) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        fd = f'fd = {{ udp("127.0.0.1", {port}), tcp("127.0.0.1", {port}) }}'
        daemon = spawnd(f"a = {{ {SLEEP}, {fd} }}\nb = {{ {SLEEP} }}")
        daemon.wait_state("a", "backoff")
        assert f"a: cannot bind tcp 127.0.0.1:{port}: Address already in use" in daemon.log()
        daemon.wait_running("b")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", port))  # the other socket of the table was not kept
    daemon.wait_state("a", "running", patience=40)


def test_a_missing_file_is_named(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ file("@/missing", "r") }}, start_limit = 2 }}')
    daemon.wait_state("a", "failed")
    assert f"cannot open '{daemon.folder}/missing': No such file or directory" in daemon.log()


def control_clients(daemon: Daemon) -> int:
    """How many connections to the control socket spawnd has; their name is the one that it was bound by."""
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(row[-1].startswith(str(daemon.runtime / "contro")) and row[5] == "03" for row in rows)


def test_no_descriptors_left(spawnd: Start) -> None:
    """EMFILE: a start fails and is tried again, what runs goes on, the control socket goes on answering."""
    daemon = spawnd(f'a = {{ {SLEEP} }}\nb = {{ {SLEEP}, fd = {{ file("/etc/passwd") }} }}')
    daemon.wait_state("b", "running")
    pid = daemon.wait_pid("a")
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    wait_until(lambda: not control_clients(daemon), "the end of the last control client")
    used = {int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd")}
    free = [number for number in range(len(used) + 3) if number not in used]
    # one for a control client, one more: too few for a start
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (free[2], before[1]))
    result = daemon.ctl("restart", "b")
    assert result.returncode == 1
    assert "Too many open files" in result.stderr
    assert daemon.pid_of("a") == pid
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    daemon.wait_state("b", "running", patience=40)
    assert daemon.pid_of("a") == pid


def test_no_descriptors_left_for_a_plan(spawnd: Start) -> None:
    """Whoever asks for one is told: nobody waits for an answer that cannot come."""
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    daemon.wait_state("a", "running")
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    for verb in ("plan", "apply"):
        wait_until(lambda: not control_clients(daemon), "the end of the last control client")
        used = {int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd")}
        free = [number for number in range(len(used) + 2) if number not in used]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (free[1], before[1]))  # one, for the client
        result = daemon.ctl(verb, timeout=60)
        assert result.returncode == 1
        assert "Too many open files" in result.stdout + result.stderr
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
        assert daemon.ctl(verb).returncode == 0


@needs_root
def test_fork_fails_for_want_of_processes(folder: Path) -> None:
    """EAGAIN from fork: the start fails and is tried again.  The limit counts for users other than root."""
    uid = 61234
    shutil.chown(folder, uid)
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}\nb = {{ {SLEEP}, status = 'stop', start_limit = 3 }}")
    with daemon.log_path.open("ab") as log:
        # two processes: spawnd itself and one more
        switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        command = ["prlimit", "--nproc=2:2", *switch, *daemon.command()]
        daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(daemon.listens, "the control socket")
        pid = daemon.wait_pid("a")
        result = daemon.ctl("start", "b")
        assert result.returncode == 1
        assert "cannot fork: Resource temporarily unavailable" in result.stderr
        assert daemon.pid_of("a") == pid
        daemon.wait_state("b", "failed")
    finally:
        daemon.kill()


@needs_root
def test_a_full_disk(folder: Path) -> None:
    """The run-time folder and the log on a file system without room: a message, and nothing that runs is disturbed."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", disk], check=True)
    try:
        more = 'ready = "notify", status = "stop", start_limit = 1'
        with Daemon(disk, f"a = {{ {SLEEP} }}\nb = {{ {SLEEP}, {more} }}") as daemon:
            pid = daemon.wait_pid("a")
            fill(disk / "fill")
            fill(daemon.log_path)  # the page that it has already
            daemon.signal(signal.SIGUSR2)
            daemon.ctl("start", "b", "--no-wait")
            os.kill(pid, signal.SIGKILL)
            new = daemon.wait_pid("a", other_than=pid)
            (disk / "fill").unlink()
            daemon.signal(signal.SIGUSR2)
            daemon.wait_log("lines of log were lost")
            assert daemon.pid_of("a") == new
    finally:
        subprocess.run(["umount", disk], check=True)


def test_signals_without_a_meaning_do_nothing(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_pid("a")
    for signum in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        daemon.signal(signum)
    daemon.signal(signal.SIGUSR1)
    daemon.wait_log(f"signal RTMIN+{signal.SIGRTMAX - signal.SIGRTMIN}: no service")
    assert daemon.pid_of("a") == pid


def test_signals_before_the_definitions_are_read(folder: Path) -> None:
    """None of them ends spawnd, however early it comes."""
    daemon = Daemon(folder, f"local x = 0\nfor i = 1, 3e7 do x = x + i end\na = {{ {SLEEP} }}").start()
    try:
        wait_until(lambda: len(children(daemon.pid)) == 1, "the evaluation")
        for signum in (signal.SIGRTMIN + 3, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            daemon.signal(signum)
        wait_until(daemon.listens, "the control socket")
        daemon.wait_state("a", "running")
    finally:
        daemon.kill()


def test_a_log_that_nobody_reads_does_not_stop_spawnd(folder: Path) -> None:
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}")
    reading, writing = os.pipe()
    daemon.process = subprocess.Popen(daemon.command(), stdin=subprocess.DEVNULL, stdout=writing, stderr=writing)
    os.close(writing)
    try:
        wait_until(daemon.listens, "the control socket")
        daemon.wait_state("a", "running")
        for _ in range(3000):
            daemon.signal(signal.SIGUSR2)
        assert daemon.ctl("restart", "a").returncode == 0
    finally:
        os.close(reading)
        daemon.kill()


@pytest.mark.parametrize("option", [[], ["--check"]])
def test_signals_that_whoever_starts_it_has_blocked(folder: Path, option: list[str]) -> None:
    """The mask goes on over exec: without CHLD and TERM spawnd would be deaf to everything."""
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}", *option)
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    daemon.prefix = [sys.executable, "-c", f"import os, signal, sys; {block}; os.execv(sys.argv[1], sys.argv[1:])"]
    daemon.start()
    try:
        if not option:
            wait_until(daemon.listens, "the control socket")
            daemon.wait_state("a", "running")
            daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 0
    finally:
        daemon.kill()
