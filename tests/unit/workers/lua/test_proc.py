"""`proc`: every function, with what it returns and how it fails."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests import fuse
from tests.hung import executing
from tests.unit.waiting import HELD_UP, child_process, wait_exit
from tests.unit.workers.lua.calls import call, exit_status, failed, forked, said, values


def test_ps() -> None:
    with child_process(signal.pause) as pid:
        body = f"""
        for _, p in ipairs(proc.ps()) do
          if p.pid == {pid} then
            assert(p.memory > 0 and p.cpu >= 0 and #p.name > 0 and #p.command > 0 and #p.state == 1)
            return p.pid .. " " .. p.ppid .. " " .. p.uid .. " " .. p.gid
          end
        end
        """
        assert said(body) == f"{pid} {os.getpid()} {os.geteuid()} {os.getegid()}"
    assert int(said("return #proc.ps()")) >= 2


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_ps_waits_for_no_process_that_hangs_in_an_execve() -> None:
    body = """
        for _, p in ipairs(proc.ps()) do
          if p.pid == %d then
            assert(p.memory >= 0 and p.cpu >= 0 and #p.name > 0 and #p.state == 1)
            return p.ppid .. " " .. p.uid
          end
        end
    """
    with executing() as (pid, *_):
        before = time.monotonic()
        assert said(body % pid) == f"{os.getpid()} {os.geteuid()}"
        assert time.monotonic() - before < HELD_UP


@pytest.mark.parametrize(("signal_", "number"), [("", 15), (', "KILL"', 9), (", 2", 2), (', "SIGUSR1"', 10)])
def test_kill(signal_: str, number: int) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # for the child, which may be hit before it has a turn
    try:
        with child_process(signal.pause) as pid:
            signal.signal(signal.SIGINT, before)
            assert values(f"proc.kill({pid}, 0)") == "true|nil|nil|nil"
            assert values(f"proc.kill({pid}{signal_})") == "true|nil|nil|nil"
            assert wait_exit(pid) == -number
    finally:
        signal.signal(signal.SIGINT, before)
    assert values(f"proc.kill({pid})") == "nil|No such process|3|nil"


def test_run() -> None:
    assert said('return proc.run("echo", "a", "b c")') == "a b c\n"
    assert said('return proc.run({ "cat", input = "x\\0y" }) == "x\\0y"') == ""
    assert said('return proc.run({ "sh", "-c", "echo $A; pwd", env = { A = "b" }, cwd = "/tmp" })') == "b\n/tmp\n"
    failing = values('proc.run("sh", "-c", "echo out; echo err >&2; exit 3")')
    assert failing == "nil|sh exited with status 3: err|3|out\n"
    assert values('proc.run("sh", "-c", "kill -9 $$")') == "nil|sh was killed by signal 9|137|"
    assert values('proc.run({ "sleep", "9", timeout = 0.1 })') == "nil|sleep did not end within 0.1 s|124|"
    assert values('proc.run("/none/x")') == "nil|/none/x: No such file or directory|2|nil"
    assert values('proc.run("/tmp")') == "nil|/tmp: Permission denied|13|nil"


def test_who_it_is() -> None:
    assert values("proc.getpid(), proc.getppid(), proc.getuid(), proc.getgid()") == (
        f"{os.getpid()}|{os.getppid()}|{os.getuid()}|{os.getgid()}"
    )


def test_set_ids() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    body = """
    assert(proc.setgid(1, 1, 1) and proc.setuid(2))
    local again, message, number = proc.setuid(0)
    return fsys.read("/proc/self/status") .. message .. number
    """
    text = forked(body).text
    assert "Uid:\t2\t2\t2\t2\nGid:\t1\t1\t1\t1\n" in text
    assert "\nGroups:\t \n" in text
    assert text.endswith("Operation not permitted1")


def test_fork_and_wait() -> None:
    body = """
    local one = proc.fork()
    if one == 0 then proc.exit(3) end
    local pid, how, code = proc.wait(one)
    assert(pid == one and how == "exit" and code == 3)
    local two = proc.fork()
    if two == 0 then while true do end end
    assert(proc.wait(two, "nohang") == false)
    proc.kill(two, "TERM")
    pid, how, code = proc.wait()
    assert(pid == two and how == "signal" and code == 15)
    local nobody, message, number = proc.wait()
    return tostring(nobody) .. message .. number
    """
    assert forked(body).text == "nilNo child processes10"


@pytest.mark.parametrize(("argument", "status"), [("", 0), ("true", 0), ("false", 1), ("7", 7)])
def test_exit(argument: str, status: int) -> None:
    assert exit_status(f"proc.exit({argument})") == status


def test_exit_with_what_has_failed(tmp_path: Path) -> None:
    body = f'fsys.dup(fsys.open("{tmp_path}/err", "w"), 2) proc.exit(proc.exec("/none/x"))'
    assert exit_status(body) == 1
    assert (tmp_path / "err").read_text() == "/none/x: No such file or directory\n"


@pytest.mark.parametrize("end", ["proc.exit()", 'proc.exec("/bin/true")', "os.exit(0)"])
def test_what_was_written_to_a_file_is_there_at_the_end(tmp_path: Path, end: str) -> None:
    assert exit_status(f'io.open("{tmp_path}/out", "w"):write("text") {end}') == 0
    assert (tmp_path / "out").read_text() == "text"


def test_exec(tmp_path: Path) -> None:
    script = f'echo "$0 $1 $A $HOME" > {tmp_path}/out; exit 5'
    assert exit_status(f"proc.exec('/bin/sh', {{ '-c', '{script}', 'zero', 'one' }}, {{ A = 'b' }})") == 5
    assert (tmp_path / "out").read_text() == "zero one b \n"
    assert exit_status('proc.exec("true")') == 0  # found in the path, and everything inherited
    outcome = forked('local none, message, number = proc.exec("/none/x") return message .. number')
    assert outcome.text == "/none/x: No such file or directory2"


def test_what_is_written_before_comes_out_once(tmp_path: Path) -> None:
    body = f"""
    fsys.dup(fsys.open("{tmp_path}/out", "w"), 1)
    io.write("begin ")
    if proc.fork() == 0 then
      io.write("child ")
      proc.exec("/bin/echo", {{ "echo" }})
    end
    proc.wait()
    print("parent")
    """
    assert forked(body).ok
    assert (tmp_path / "out").read_text() == "begin child echo\nparent\n"


def test_uname() -> None:
    found = os.uname()
    body = "local u = proc.uname() return table.concat({ u.sysname, u.nodename, u.release, u.version, u.machine }, '|')"
    assert said(body) == "|".join(found)


def test_limits() -> None:
    body = """
    proc.limits.soft.nofile = 9
    proc.limits.hard.nofile = 20
    proc.limits.soft.core = 0
    proc.limits.hard.core = "unlimited"
    proc.limits.soft.stack = "64k"
    proc.limits.soft.cpu = "5m"
    local soft, hard = proc.limits.soft, proc.limits.hard
    return table.concat({ soft.nofile, hard.nofile, soft.stack, soft.cpu, soft.core }, " ")
    """
    assert forked(body).text == "9 20 65536 300 0"
    lowered = forked("proc.limits.hard.nofile = 5 return proc.limits.soft.nofile .. ' ' .. proc.limits.hard.nofile")
    assert lowered.text == "5 5"
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert said("return proc.limits.soft.nofile") == (str(soft) if soft != resource.RLIM_INFINITY else "unlimited")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("proc.kill()", "bad argument #1 to 'kill' (number expected, got nil)"),
        ('proc.kill(1, "TREM")', "bad argument #2 to 'kill' (unknown signal 'TREM', did you mean 'TERM'?)"),
        ("proc.run()", "bad argument #1 to 'run' (a program expected)"),
        ("proc.run({})", "bad argument #1 to 'run' (a program expected)"),
        ('proc.run({ "x", inptu = "" })', "bad argument #1 to 'run' (there is no option 'inptu')"),
        ('proc.run({ "x", timeout = 0 })', "bad argument #1 to 'run' (timeout: a number of seconds expected)"),
        ('proc.run({ "x", timeout = math.huge })', "bad argument #1 to 'run' (timeout: a number of seconds expected)"),
        ('proc.run("x", {})', "bad argument #1 to 'run' (string expected, got table)"),
        ("proc.setuid()", "bad argument #1 to 'setuid' (number expected, got nil)"),
        ("proc.setgid(-1)", "bad argument #1 to 'setgid' (an integer from 0 to 4294967294 expected, got -1)"),
        ('proc.wait(1, "now")', "bad argument #2 to 'wait' ('nohang' expected, got 'now')"),
        ("proc.exit(0, 1)", "bad argument #2 to 'exit' (no more than 1 expected)"),
        ("proc.exit(256)", "bad argument #1 to 'exit' (an integer from 0 to 255 expected, got 256)"),
        ('proc.exec("x", "y")', "bad argument #2 to 'exec' (table expected, got string)"),
        ('proc.exec("x", {}, { "a" })', "bad argument #3 to 'exec' (names of variables expected, got 1)"),
        ("return proc.limits.soft.nofiel", "there is no limit 'nofiel'"),
        ('proc.limits.soft.nofile = "many"', "cannot set limit 'nofile': 'many' is not"),
        ("proc.limits.soft.nofile = {}", "cannot set limit 'nofile': a number or text expected, got table"),
        ("proc.uname(1)", "bad argument #1 to 'uname' (no more than 0 expected)"),
    ],
)
def test_wrong_calls(body: str, message: str) -> None:
    assert failed(body).startswith(message), failed(body)


def test_an_error_in_a_call_has_the_line_of_the_script() -> None:
    outcome = call("\nproc.kill()")
    assert outcome.text.startswith("/t.lua:4: bad argument")
    assert "/t.lua:4: in function" in outcome.trace
