"""Programs that go into the background, in a cgroup and without one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon import Daemon, descendants, wait_until
from tests.integration.conftest import Lasting, new_folder
from tests.integration.processes import alive
from tests.integration.test_cgroups import new_subtree
from tests.unit.process.launched import PYTHON

# Forks twice and makes a session in between, as daemon(7) says.  $1 is the pid file, or empty; with a second
# argument a worker is forked beside the daemon.  Ends well on TERM.
DAEMON = f"""#!{PYTHON} -ISB
import os, signal, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    time.sleep(0.02)
    os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if len(sys.argv) > 2 and os.fork() == 0:
    signal.sigwait([signal.SIGTERM])
    os._exit(0)
if sys.argv[1]:
    time.sleep(0.05)
    with open(sys.argv[1], "w") as file:
        print(os.getpid(), file=file)
signal.sigwait([signal.SIGTERM])
"""
# Overwrites its environment, as nginx does, before the first process ends, and writes its pid file a while later.
OVERWRITES = f"""#!{PYTHON} -ISB
import ctypes, os, sys, time
read_end, write_end = os.pipe()
if os.fork():
    os.close(write_end)
    os.read(read_end, 1)
    os._exit(0)
os.setsid()
with open("/proc/self/stat") as file:
    start, end = map(int, file.read().rpartition(")")[2].split()[47:49])
ctypes.memset(start, 0, end - start)
os.close(write_end)
if len(sys.argv) > 2:
    with open(sys.argv[2], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1)
time.sleep(0.3)
with open(sys.argv[1], "w") as file:
    print(os.getpid(), file=file)
while True:
    time.sleep(1000)
"""
# The same, but the daemon has lost its parent, and the first process stays until it is told to stop: then it ends with
# the status $3, or by the signal.
LINGERS = OVERWRITES.replace("os.setsid()\n", "os.setsid()\nif os.fork():\n    os._exit(0)\n", 1).replace(
    "    os._exit(0)\n",
    """    import signal
    os.wait()
    if sys.argv[3]:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.sigwait([signal.SIGTERM])
        os._exit(int(sys.argv[3]))
    while True:
        time.sleep(1000)
""",
    1,
)
LONG = 'stop_timeout = "10m"'  # for a busy machine
PLACES = [
    pytest.param(True, id="cgroup", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")),
    pytest.param(False, id="alone"),
]
Run = Callable[..., Daemon]


@pytest.fixture(scope="module")
def alone() -> Iterator[Lasting]:
    with new_folder() as folder:
        daemon = Lasting(folder)
        yield daemon
        daemon.close()


@pytest.fixture(scope="module")
def in_cgroup() -> Iterator[Lasting]:
    with new_subtree() as path, new_folder() as folder:
        daemon = Lasting(folder, f'_SUPERVISOR = {{ cgroup = "{path}" }}\n')
        yield daemon
        daemon.close()


@pytest.fixture(params=PLACES)
def run(request: pytest.FixtureRequest, program: Callable[[str, str], str]) -> Iterator[Run]:
    """`run(keys, arguments, text)`: a spawnd with the service `s`."""
    lasting: Lasting = request.getfixturevalue("in_cgroup" if request.param else "alone")
    with ExitStack() as stack:

        def start(keys: str, arg: str = '""', text: str = DAEMON) -> Daemon:
            path = program("daemon", text)
            definition = f's = {{ exec = "{path}", arg = {{ {arg} }}, forking = true, {keys} }}'
            return stack.enter_context(lasting.running(definition))

        yield start


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_process_that_is_left_is_supervised(run: Run) -> None:
    daemon = run("")
    pid = daemon.wait_running("s")
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2].endswith(b"/daemon")
    assert parent(pid) == daemon.pid
    os.kill(pid, signal.SIGKILL)
    again = wait_until(lambda: (found := daemon.pid_of("s")) not in (None, pid) and found, "a new process")
    daemon.wait_running("s")
    assert again
    assert daemon.ctl("stop", "s").returncode == 0
    assert daemon.state("s") == "stopped"
    assert not alive(again)


def test_the_exit_of_the_first_process_is_no_exit_of_the_service(run: Run) -> None:
    daemon = run("")
    pid = daemon.wait_running("s")
    (status,) = json.loads(daemon.ctl("status", "s", "--json").stdout)
    assert status["last_exit"] == ""
    os.kill(pid, signal.SIGKILL)
    daemon.wait_running("s", other_than=pid)
    assert "restarted because its process was killed by KILL" in daemon.ctl("why", "s").stdout
    reply = json.loads(daemon.ctl("why", "s", "--json").stdout)
    assert [(link["exit_status"], link["signal"]) for link in reply["chain"]] == [(None, signal.SIGKILL)]
    (status,) = json.loads(daemon.ctl("status", "s", "--json").stdout)
    assert status["last_exit"] == "killed by KILL"


def test_the_pid_file_tells_which_process_it_is(run: Run, folder: Path) -> None:
    path = folder / "out" / "pid"
    daemon = run(f'pid_file = "{path}"', f'"{path}", "worker"')
    pid = daemon.wait_running("s")
    assert pid == int(path.read_text())
    (worker,) = descendants(pid)
    assert daemon.ctl("stop", "s").returncode == 0
    assert not alive(pid)
    wait_until(lambda: not alive(worker), "the end of the worker")


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_a_daemon_that_overwrites_its_environment(run: Run, folder: Path, user: str) -> None:
    path = folder / "out" / "pid"
    daemon = run(f'pid_file = "{path}", user = "{user}", start_limit = 1', f'"{path}"', OVERWRITES)
    pid = daemon.wait_running("s")
    assert pid == int(path.read_text())
    assert daemon.ctl("restart", "s").returncode == 0
    again = daemon.wait_running("s", other_than=pid)
    assert again == int(path.read_text())
    assert not alive(pid)
    assert daemon.ctl("stop", "s").returncode == 0
    assert not alive(again)
    assert "behind" not in daemon.log()


def test_a_pid_file_of_a_program_that_leaves_nothing(run: Run, folder: Path) -> None:
    path = folder / "out" / "pid"
    path.write_text(f"{os.getpid()}\n")
    daemon = run(f'pid_file = "{path}", start_limit = 1', text="#!/bin/sh\nexit 0\n")
    daemon.wait_state("s", "failed")
    said = f"left no process in the background (its pid_file '{path}' names process {os.getpid()}, '"
    assert said in daemon.ctl("why", "s").stdout


def test_a_pid_file_with_the_id_of_another_process_is_not_followed(run: Run, folder: Path) -> None:
    path = folder / "out" / "pid"
    path.write_text(f"{os.getpid()}\n")
    daemon = run(f'pid_file = "{path}", start_timeout = "2s", start_limit = 1', '""')
    daemon.wait_state("s", "failed")
    assert alive(os.getpid())
    reply = json.loads(daemon.ctl("why", "s", "--json").stdout)
    assert f"its pid_file '{path}' names process {os.getpid()}, '" in reply["answer"]
    assert "', which is not of the service; " in reply["answer"]
    assert "have it write the process id of its daemon there" in reply["hint"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "names no process: No such file or directory"),
        ("soon", "names no process: no process id is in it"),
        ("4194304", "names process 4194304, which does not exist"),
    ],
)
def test_a_pid_file_that_leads_nowhere(run: Run, folder: Path, text: str | None, said: str) -> None:
    path = folder / "out" / "pid"
    if text is not None:
        path.write_text(f"{text}\n")
    daemon = run(f'pid_file = "{path}"', '""')
    expected = f"s is starting: its pid_file '{path}' {said}; "
    wait_until(lambda: expected in daemon.ctl("why", "s").stdout, "what is wrong with the file")
    if text is not None:
        daemon.wait_log(f"s: its pid_file '{path}' {said}")


def test_a_program_that_leaves_nothing_has_failed(run: Run) -> None:
    daemon = run("start_limit = 1", text="#!/bin/sh\nexit 0\n")
    daemon.wait_state("s", "failed")
    assert "left no process in the background" in daemon.ctl("list").stdout
    reply = json.loads(daemon.ctl("why", "s", "--json").stdout)
    assert reply["answer"].startswith("s has failed: it left no process in the background")
    assert "needs no `forking`" in reply["hint"]


def test_several_processes_are_told_of(run: Run) -> None:
    text = "#!/bin/sh\n/bin/sleep 1000 &\n/bin/sleep 1000 &\n"
    daemon = run('start_timeout = "2s", start_limit = 1', text=text)
    said = "2 processes are in the background: pid_file would say which one is to be supervised"
    wait_until(lambda: f"s is starting: {said}" in daemon.ctl("why", "s").stdout, "their number")
    daemon.wait_log(f"s: {said}")
    daemon.wait_state("s", "failed")
    reply = json.loads(daemon.ctl("why", "s", "--json").stdout)
    assert said in reply["answer"]
    assert "`pid_file` tells" in reply["hint"]


def test_a_program_that_fails_leaves_nothing(run: Run) -> None:
    daemon = run("start_limit = 1", text="#!/bin/sh\nsleep 1000 &\nexit 3\n")
    daemon.wait_state("s", "failed")
    assert "exited with status 3" in daemon.ctl("list").stdout


def test_a_process_that_stays_in_the_session_and_has_another_environment(run: Run) -> None:
    daemon = run("", text="#!/bin/sh\n/usr/bin/env -i /bin/sleep 1000 &\n")
    pid = daemon.wait_running("s")
    assert daemon.ctl("stop", "s").returncode == 0
    assert not alive(pid)


def test_a_stop_while_it_is_looked_for(run: Run, folder: Path) -> None:
    path = folder / "out" / "pid"
    daemon = run(f'pid_file = "{path}"', '""')
    daemon.wait_state("s", "starting")
    assert daemon.ctl("stop", "s").returncode == 0
    assert daemon.state("s") == "stopped"


@pytest.mark.parametrize("timeout", ["", 'start_timeout = "1s", '])
@pytest.mark.parametrize("text", [DAEMON, OVERWRITES], ids=["marked", "overwrites"])
def test_a_daemon_that_is_not_found_yet_ends_with_its_service(run: Run, folder: Path, text: str, timeout: str) -> None:
    """The pid file of one comes never, that of the other after the order to stop."""
    path, own = folder / "out" / "pid", folder / "out" / "own"
    arguments = f'"{own}"' if text is DAEMON else f'"{path}", "{own}"'
    daemon = run(f'pid_file = "{path}", {timeout}start_limit = 1', arguments, text)
    pid = int(wait_until(lambda: own.exists() and own.read_text(), "a process in the background"))
    if timeout:
        daemon.wait_state("s", "failed")
    else:
        assert daemon.ctl("stop", "s").returncode == 0
        assert daemon.state("s") == "stopped"
    wait_until(lambda: not alive(pid), "the end of the daemon")


@pytest.mark.parametrize(("order", "status"), [("stop", ""), ("stop", "1"), ("restart", ""), ("too late", "1")])
def test_a_stop_waits_for_a_daemon_whose_first_process_still_runs(
    run: Run, folder: Path, order: str, status: str
) -> None:
    """Only the pid file, which comes later, tells that the daemon is the service's."""
    path, own = folder / "out" / "pid", folder / "out" / "own"
    timeout = 'start_timeout = "8s", ' if order == "too late" else ""
    daemon = run(f'pid_file = "{path}", {timeout}start_limit = 1, {LONG}', f'"{path}", "{own}", "{status}"', LINGERS)
    pid = int(wait_until(lambda: own.exists() and own.read_text(), "a process in the background"))
    match order:
        case "stop":
            assert daemon.ctl("stop", "s").returncode == 0
        case "restart":
            own.unlink()
            assert daemon.ctl("restart", "s", "--no-wait").returncode == 0
            wait_until(lambda: own.exists() and own.read_text(), "the next process in the background")
        case _:
            daemon.wait_state("s", "failed")
    assert not alive(pid)


def test_a_daemon_that_never_shows_whose_it_is_is_named(run: Run, folder: Path) -> None:
    own = folder / "out" / "own"
    daemon = run('pid_file = "/nonexistent", stop_timeout = "300ms"', f'"/dev/null", "{own}"', OVERWRITES)
    pid = int(wait_until(lambda: own.exists() and own.read_text(), "a process in the background"))
    assert daemon.ctl("stop", "s").returncode == 0
    if alive(pid):  # there is no cgroup
        daemon.wait_log(f"cannot tell which service left process {pid} ")
        os.kill(pid, signal.SIGKILL)
    assert daemon.state("s") == "stopped"


def test_an_exec_and_a_loss_of_spawnd(run: Run, folder: Path) -> None:
    path = folder / "out" / "pid"
    daemon = run(f'pid_file = "{path}"', f'"{path}"')
    pid = daemon.wait_running("s")
    assert daemon.ctl("reexec").returncode == 0
    assert daemon.wait_running("s") == pid
    daemon.lose()
    daemon.again()
    assert daemon.wait_running("s") == pid
    assert daemon.ctl("restart", "s").returncode == 0
    assert daemon.wait_running("s") != pid


def test_the_daemon_is_never_written_down_as_the_first_process(run: Run) -> None:
    """The next spawnd would wait for its end, and end it as a service that is not ready in time."""
    daemon = run("")
    pid = daemon.wait_running("s")
    state = daemon.runtime / "state"
    wait_until(lambda: f'"pid":{pid},' in state.read_text().replace(" ", ""), "a record of it")
    records = [json.loads(line) for line in state.read_bytes().split(b"\n")[:-1]]
    units = [record["unit"] for record in records if record.get("name") == "s" and "unit" in record]
    assert {unit["life"]["state"] for unit in units if unit.get("pid") == pid} == {"running"}


@pytest.mark.parametrize("lost", [False, True])
def test_an_exec_and_a_loss_while_it_is_looked_for(run: Run, folder: Path, lost: bool) -> None:
    path = folder / "out" / "pid"
    own = folder / "out" / "own"
    daemon = run(f'pid_file = "{path}"', f'"{own}"')
    pid = int(wait_until(lambda: own.exists() and own.read_text().strip(), "a process in the background"))
    wait_until(lambda: daemon.pid_of("s") is None, "the end of the first process")
    if lost:
        state = daemon.runtime / "state"  # the proof after a loss, without a cgroup
        wait_until(lambda: any(word in state.read_text() for word in (f"[{pid},", '"cgroup":')), "a record of it")
        daemon.lose()
        daemon.again()
    else:
        assert daemon.ctl("reexec").returncode == 0
    assert daemon.state("s") == "starting"
    path.write_text(str(pid))
    assert daemon.wait_running("s") == pid


def test_a_stop_still_waits_for_the_pid_file_after_an_exec(run: Run, folder: Path) -> None:
    """After a loss it is a process of somebody else."""
    path, own = folder / "out" / "pid", folder / "out" / "own"
    daemon = run(f'pid_file = "{path}", {LONG}', f'"/dev/null", "{own}"', OVERWRITES)
    pid = int(wait_until(lambda: own.exists() and own.read_text(), "a process in the background"))
    wait_until(lambda: daemon.pid_of("s") is None, "the end of the first process")
    assert daemon.ctl("stop", "s", "--no-wait").returncode == 0
    for _ in range(2):  # the second exec has to find what the first one has resumed
        assert daemon.ctl("reexec").returncode == 0
    assert daemon.state("s") == ("stopping" if alive(pid) else "stopped")  # a cgroup needs no proof
    path.write_text(str(pid))
    wait_until(lambda: not alive(pid), "the end of the daemon")
    daemon.wait_state("s", "stopped")
