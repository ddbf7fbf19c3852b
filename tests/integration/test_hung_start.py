"""Starts that hang in a file system whose server does not answer: they keep nobody else waiting."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import fuse
from tests.daemon import Daemon, children, command_name, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import NOTE, module, notes
from tests.integration.versions import install
from tests.unit.waiting import HELD_UP

SLEEP = 'exec = "/bin/sleep", arg = { "100000" }, user = "root"'
ONCE = 'restart = "never"'
BEFORE = "spawnd: launch"  # name of a process before its program runs
CLONE = "supervisor.linux.clone"
pytestmark = pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")


@pytest.mark.parametrize(
    ("opcode", "key"),
    [
        (fuse.OPEN, 'env_file = "{path}"'),
        (fuse.ACCESS, 'cwd = "{folder}"'),
        (fuse.ACCESS, 'chroot = "{folder}"'),
    ],
    ids=["env_file", "cwd", "chroot"],
)
def test_a_start_that_hangs_keeps_nobody_waiting(spawnd: Start, opcode: int, key: str) -> None:
    with fuse.unanswering(opcode) as path:
        keys = key.format(path=path, folder=os.path.dirname(path))
        daemon = spawnd(f"a = {{ {SLEEP}, {keys}, stop_timeout = '1s' }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        pid = daemon.pid_of("a")
        assert pid is not None
        wait_until(lambda: command_name(pid) == BEFORE, "a process that is being set up")
        for command in (("restart", "b"), ("reexec",), ("restart", "b"), ("list",)):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        wait_until(lambda: daemon.state("a") in ("stopping", "stopped"), "the stop")
    daemon.wait_state("a", "stopped")
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("opcode", "keys"),
    [(fuse.OPEN, 'env_file = "{path}"'), (fuse.OPEN, 'check = {{ "{path}" }}')],
    ids=["program", "check"],
)
def test_a_process_that_is_killed_before_its_program_runs_has_not_run(spawnd: Start, opcode: int, keys: str) -> None:
    with fuse.unanswering(opcode) as path:
        daemon = spawnd(f"a = {{ {SLEEP}, {keys.format(path=path)}, {ONCE} }}\nd = {{ {SLEEP}, depends = 'a' }}")
        wait_until(lambda: command_name(daemon.wait_pid("a")) == BEFORE, "a process that is being set up")
        os.kill(daemon.wait_pid("a"), signal.SIGKILL)
    daemon.wait_state("a", "failed")
    program = path if "check" in keys else "/bin/sleep"
    assert f"cannot start '{program}': killed by KILL before the program ran" in daemon.log()
    why = " ".join(daemon.ctl("why", "a").stdout.split())
    assert f"could not start '{program}': killed by KILL before the program ran" in why
    assert "a: running" not in daemon.log()
    assert "Starting d" not in daemon.log()


def open_paths(pid: int) -> list[str]:
    numbers = [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
    return [os.readlink(number) for number in numbers if os.path.lexists(number)]


FILES = {"log": 'stdout = file("{path}", "a")', "input": 'stdin = file("{path}", "r")'}


@pytest.mark.parametrize("key", FILES.values(), ids=FILES)
@pytest.mark.parametrize("opcode", [fuse.OPEN, fuse.LOOKUP], ids=["open", "lookup"])
def test_a_file_that_hangs_in_its_opening_keeps_nobody_waiting(spawnd: Start, opcode: int, key: str) -> None:
    with fuse.unanswering(opcode) as path:
        daemon = spawnd(f"a = {{ {SLEEP}, {key.format(path=path)}, stop_timeout = '1s' }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        assert daemon.state("a") == "starting"
        for command in (("restart", "b"), ("reexec",), ("restart", "b"), ("list",)):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        assert daemon.ctl("stop", "--no-wait", "a").returncode == 0
        wait_until(lambda: daemon.state("a") in ("stopping", "stopped"), "the stop")
    daemon.wait_state("a", "stopped")


@pytest.mark.parametrize("opcode", [fuse.LOOKUP, fuse.OPEN, fuse.READ], ids=["lookup", "open", "read"])
def test_a_pid_file_that_hangs_keeps_nobody_waiting(spawnd: Start, opcode: int) -> None:
    """One child at a time reads it, however often the service is started."""
    with fuse.unanswering(opcode) as path:
        daemonize = 'exec = "/bin/sh", arg = { "-c", "/bin/sleep 100000 &" }, user = "root", forking = true'
        keys = f'pid_file = "{path}", start_timeout = "4s", stop_timeout = "3s"'
        daemon = spawnd(f"a = {{ {daemonize}, {keys} }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        said = f"its pid_file '{path}' names no process: its file system does not answer"
        wait_until(lambda: said in " ".join(daemon.ctl("why", "a").stdout.split()), "what is wrong with the file")
        for command in (("restart", "b"), ("restart", "--no-wait", "a"), ("list",)):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        wait_until(lambda: len(readers(daemon)) == 1, "one reader, beside children that are about to end")
        assert daemon.ctl("stop", "a", timeout=HELD_UP).returncode == 0
        daemon.wait_state("a", "stopped")
        assert daemon.ctl("reexec", timeout=HELD_UP).returncode == 0


def readers(daemon: Daemon) -> list[int]:
    """The children of spawnd that execute no program."""
    return [pid for pid in children(daemon.pid) if command_name(pid) == command_name(daemon.pid)]


def test_a_loss_while_a_file_hangs_in_its_opening(spawnd: Start) -> None:
    with fuse.unanswering(fuse.OPEN) as path:
        daemon = spawnd(f"a = {{ {SLEEP}, {FILES['log'].format(path=path)} }}\nb = {{ {SLEEP} }}")
        pid = daemon.wait_running("b")
        daemon.lose()
        daemon.again()
        assert daemon.wait_running("b") == pid
    wait_until(lambda: daemon.services()["a"]["reason"], "the end of the process that opened the file")


def test_files_whose_server_answers_are_open_over_restarts(spawnd: Start) -> None:
    """One child opens them all, for the process and those that follow it."""
    with fuse.unanswering() as path:
        keys = ", ".join(key.format(path=path) for key in FILES.values())
        daemon = spawnd(f'a = {{ {SLEEP}, {keys}, fd = {{ tcp("127.0.0.1", 0), file("{path}", "r+") }} }}')
        for command in (["restart", "a"], ["reexec"], ["restart", "a"]):
            pid = daemon.wait_running("a")
            assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 4)] == [path] * 3
            assert daemon.ctl(*command).returncode == 0
        assert daemon.ctl("apply").returncode == 0
        assert "opened anew" not in daemon.log()


def test_files_whose_server_answers_are_opened_for_the_function_that_stops(spawnd: Start, folder: Path) -> None:
    """A loss takes them from a service without a process."""
    with fuse.unanswering() as path:
        fd = f'fd = {{ file("{path}", "r+") }}'
        functions = 'function start() note("start") end function stop() note("stop") end'
        daemon = spawnd(NOTE + module("a", f"{fd}\n{functions}"))
        daemon.wait_state("a", "running")
        daemon.lose()
        daemon.again()
        assert daemon.state("a") == "running"
        assert daemon.ctl("stop", "a").returncode == 0
    assert notes(folder) == ["start", "stop"]


def test_a_process_that_opens_files_is_not_taken_for_the_service(spawnd: Start) -> None:
    with fuse.unanswering(fuse.OPEN) as path:
        daemon = spawnd(f"a = {{ {SLEEP}, {FILES['log'].format(path=path)}, {ONCE} }}\nb = {{ {SLEEP} }}")
        daemon.wait_running("b")
        pid = daemon.pid_of("a")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    daemon.wait_state("a", "failed")
    assert "a: running" not in daemon.log()


def test_a_file_that_is_missing_on_such_a_file_system(spawnd: Start) -> None:
    with fuse.unanswering() as path:
        daemon = spawnd(f"a = {{ {SLEEP}, stdout = file('{path}/below', 'a') }}")
        daemon.wait_log(f"cannot open '{path}/below': Not a directory (ENOTDIR)")


@pytest.mark.parametrize("traces", [True, False], ids=["traces", "traces_not"])
def test_a_re_exec_does_not_wait_for_the_server_of_an_open_file(folder: Path, traces: bool) -> None:
    """Neither the trial nor the holder keeps an address of a service, even where they have copies of the file."""
    forbids = f"import {CLONE}\ndef no(*_arguments): raise PermissionError(1, 'no')\n{CLONE}.pidfd_getfd = no"
    with ExitStack() as stack, fuse.unanswering(fuse.FLUSH) as path:  # the server ends before the daemon
        fd = f'fd = {{ file("{path}", "r+"), stream("{folder}/sock") }}'
        daemon = Daemon(folder, f"a = {{ {SLEEP}, {fd} }}\nb = {{ {SLEEP} }}")
        daemon.program = install(folder, then="" if traces else forbids)
        stack.enter_context(daemon)
        daemon.wait_running("b")
        wait_until(lambda: path in open_paths(daemon.pid), "the file, sent by a process that waits for the server")
        first, before = daemon.pid_of("a"), set(children(daemon.pid))
        for _ in range(2):
            assert daemon.ctl("reexec", timeout=HELD_UP).returncode == 0
        assert daemon.pid_of("a") == first
        assert path in open_paths(daemon.pid)

        def left() -> list[str]:
            """Return the files that processes forked for it hold."""
            return [target for pid in set(children(daemon.pid)) - before for target in open_paths(pid)]

        wait_until(lambda: not any(target.startswith("socket:") for target in left()), "the end of all sockets")
        if traces:
            wait_until(lambda: not left(), "the end of trial and holder")


def test_a_file_whose_server_does_not_answer_keeps_no_other_start_waiting(spawnd: Start) -> None:
    """Each close of any of its descriptors asks the server."""
    with fuse.unanswering(fuse.FLUSH) as path:
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ file("{path}", "r+") }} }}\nb = {{ {SLEEP} }}')
        first = daemon.wait_running("b")
        for command in (("restart", "b"), ("list",)):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0
        daemon.wait_running("b", other_than=first)


def test_nor_any_other_work(spawnd: Start) -> None:
    """The processes that spawnd forks for it have no descriptor of the file, which they would close."""
    with fuse.unanswering(fuse.FLUSH) as path:
        text = f'a = {{ {SLEEP}, fd = {{ file("{path}", "r+") }} }}\nb = {{ {SLEEP} }}\n'
        module = 'module("m", package.seeall)\nfunction start() end\nfunction reload() end\n'
        daemon = spawnd(text + module)
        daemon.wait_running("b")
        daemon.wait_state("m", "running")
        assert daemon.ctl("reload", "m", timeout=HELD_UP).returncode == 0
        daemon.definitions.write_text(f"{text}c = {{ {SLEEP} }}\n{module}")
        assert "1 to start" in daemon.ctl("plan", timeout=HELD_UP).stdout
        assert daemon.ctl("apply", timeout=HELD_UP).returncode == 0
        daemon.wait_running("c")


def test_nor_a_worker_nor_the_files_that_a_service_reopens(spawnd: Start, folder: Path) -> None:
    worker = f'w = {{ worker = "accessory", user = "root", ready = "notify", fd = {{ seqpacket("{folder}/spawn") }} }}'
    with fuse.unanswering(fuse.FLUSH) as path:
        log = f'b = {{ {SLEEP}, stdout = file("{folder}/log", "a") }}'
        daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ file("{path}", "r+") }} }}\n{log}\n{worker}')
        first = daemon.wait_running("w")
        wait_until(lambda: path in open_paths(daemon.pid), "the file")
        assert daemon.ctl("restart", "w", timeout=HELD_UP).returncode == 0
        daemon.wait_running("w", other_than=first)
        (folder / "log").rename(folder / "log.1")
        assert daemon.ctl("reopen", "b", timeout=HELD_UP).returncode == 0
        assert (folder / "log").exists()
