"""The functions of modules under a real spawnd: what they are as processes, and what they do."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.integration.modules import NOTE, module, notes, wait_notes
from tests.integration.test_bad_input import needs_root

pytestmark = pytest.mark.lasting

# what they are


def test_they_run_as_root_unless_user_says_otherwise(spawnd: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    say = "function start() print(proc.getuid(), proc.getgid()) end"
    daemon = spawnd(
        module("root", say)
        + module("other", f'user = "daemon" group = "daemon" {say}')
        + module("process", f'exec = "/bin/sleep" arg = {{ 100000 }} {say}')
    )
    for name in ("root", "other", "process"):
        daemon.wait_state(name, "running")
    uid = 1  # of daemon
    wait_until(lambda: daemon.ctl("logs", "other").stdout == f"{uid}\t{uid}\n", "what it said")
    wait_until(lambda: daemon.ctl("logs", "root").stdout == "0\t0\n", "what it said")
    wait_until(lambda: daemon.ctl("logs", "process").stdout == "0\t0\n", "what it said")
    pid = daemon.pid_of("process")
    assert os.stat(f"/proc/{pid}").st_uid == 65534


def test_a_user_s_function_sees_nothing_of_spawnd(spawnd: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    body = 'user = "daemon" function start() for _, fd in ipairs(fsys.dir("/proc/self/fd")) do print(fd) end end'
    daemon = spawnd(module("a", body))
    daemon.wait_state("a", "running")
    wait_until(lambda: daemon.ctl("logs", "a").stdout, "what it said")
    # the answer (4), the control socket of the set-up is closed by exec, and the folder that is read, with those above
    assert set(daemon.ctl("logs", "a").stdout.split()) <= {"0", "1", "2", "3", "4", "5", "6", "7"}


def test_its_environment_and_place(spawnd: Start, folder: Path) -> None:
    body = """
    env = { A = "b" } cwd = "@/out" umask = "022"
    fd = { file("@/services.lua", "r") }
    function start()
      assert(os.getenv("A") == "b" and os.getenv("HOME") == nil)
      assert(os.getenv("PATH") == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
      assert(fsys.umask() == "0022")
      local file = io.open("here", "w")
      file:close()
      assert(fsys.read("/proc/self/fd/3") == fsys.read("@/services.lua"))
    end
    """
    daemon = spawnd(module("a", body))
    daemon.wait_state("a", "running")
    assert (folder / "out" / "here").exists()


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_programs_that_they_run_ignore_no_signals(spawnd: Start, user: str) -> None:
    body = f'user = "{user}" function start() print(io.popen("cat /proc/self/status"):read("*a")) end'
    daemon = spawnd(module("a", body))
    daemon.wait_state("a", "running")
    wait_until(lambda: "SigIgn:" in daemon.ctl("logs", "a").stdout, "what it said")
    (ignored,) = re.findall(r"SigIgn:\s*([0-9a-f]+)", daemon.ctl("logs", "a").stdout)
    assert [signum for signum in (signal.SIGPIPE, signal.SIGXFSZ) if int(ignored, 16) & 1 << (signum - 1)] == []


def test_functions_are_those_that_were_checked(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(NOTE + module("a", 'function start() note("old start") end function stop() note("old stop") end'))
    daemon.wait_state("a", "running")
    text = daemon.definitions.read_text().replace("old", "new")
    daemon.definitions.write_text(text)
    assert daemon.ctl("stop", "a").returncode == 0
    wait_notes(folder, "old start", "old stop")
    plan = daemon.ctl("plan")
    assert "functions" in plan.stdout
    assert daemon.ctl("apply").returncode == 0
    assert daemon.ctl("start", "a").returncode == 0
    wait_notes(folder, "old start", "old stop", "new start")


def test_a_large_file_is_evaluated_once_and_each_call_has_its_own(spawnd: Start, folder: Path) -> None:
    filler = "".join(f"-- {'x' * 100}\n" for _ in range(60))
    body = "count = nil _count = 0 function start() _count = _count + 1 note(_NAME .. _count) end"
    daemon = spawnd(NOTE + filler + module("a", body) + module("b", body, "a") + module("c", body, "b"))
    daemon.wait_state("c", "running")
    assert notes(folder) == ["a1", "b1", "c1"]
    assert daemon.ctl("restart", "a").returncode == 0
    assert notes(folder)[3:] == ["a1"]


@pytest.mark.lasting(False)
def test_large_files_with_the_same_text_are_two(spawnd: Start, folder: Path) -> None:
    daemon = spawnd("")
    daemon.definitions.unlink()
    daemon.definitions.mkdir()
    filler = "".join(f"-- {'x' * 100}\n" for _ in range(60))
    text = NOTE.replace("@", str(folder)) + filler + "module(..., package.seeall) function start() note(_NAME) end\n"
    for name in ("one", "two"):
        (daemon.definitions / f"{name}.lua").write_text(text)
    assert daemon.ctl("apply").returncode == 0
    assert {name: row["state"] for name, row in daemon.services().items()} == {"one": "running", "two": "running"}
    assert sorted(notes(folder)) == ["one", "two"]


# with a process


def test_start_before_and_stop_after_the_process(spawnd: Start, folder: Path) -> None:
    body = f"""
    exec = "/bin/sh" arg = {{ "-c", "echo process >> {folder}/out/notes; exec sleep 100000" }}
    user = "root"
    function start() note("start") end
    function stop() note("stop") end
    """
    daemon = spawnd(NOTE + module("a", body))
    pid = daemon.wait_running("a")
    wait_notes(folder, "start", "process")
    os.kill(pid, signal.SIGKILL)
    wait_notes(folder, "start", "process", "stop", "start", "process")
    assert daemon.ctl("stop", "a").returncode == 0
    assert notes(folder)[5:] == ["stop"]


# by hand


BY_HAND = """
user = "root"
service = nil
function start()
  local child = proc.fork()
  if child > 0 then
    print("child", child)
    return true
  end
  fsys.umask("---rwxrwx")
  fsys.chdir("/tmp")
  local null = assert(fsys.open("/dev/null", "r+"))
  fsys.dup(null, 0)
  fsys.dup(null, 1)
  fsys.dup(null, 2)
  fsys.close(3, 1000)
  if proc.getuid() == 0 then
    local group, user = unix.groups["daemon"], unix.users["daemon"]
    assert(proc.setgid(group.gid, group.gid, group.gid))
    assert(proc.setuid(user.uid, user.uid, user.uid))
  end
  for resource, value in pairs({ core = 0, nofile = 10, stack = "1m" }) do
    proc.limits.soft[resource] = value
    proc.limits.hard[resource] = value
  end
  proc.exit(proc.exec("/bin/sleep", { "424243" }, { A = "b" }))
end
"""


@needs_root
def test_a_service_that_is_started_by_hand(spawnd: Start) -> None:
    daemon = spawnd(module("a", BY_HAND))
    daemon.wait_state("a", "running")
    wait_until(lambda: daemon.ctl("logs", "a").stdout, "the pid")
    pid = int(daemon.ctl("logs", "a").stdout.split()[1])
    wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"/bin/sleep\x00424243\x00", "exec")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Umask:\t0077" in status
    assert "\nUid:\t1\t1\t1\t1\n" in status
    assert "\nGroups:\t \n" in status
    assert b"A=b" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert os.readlink(f"/proc/{pid}/cwd") == "/tmp"
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[-3:-1] for line in limits.splitlines() if line.startswith("Max open files")] == [["10", "10"]]
    daemon.remember([pid])
    assert daemon.ctl("stop", "a").returncode == 0
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of what it had started")


@needs_root
def test_what_a_failed_start_has_left_is_ended(spawnd: Start, folder: Path) -> None:
    body = """
    start_limit = 1
    function start()
      local child = proc.fork()
      if child == 0 then proc.exec("/bin/sleep", { "424244" }) end
      note(child)
      return false
    end
    """
    daemon = spawnd(NOTE + module("a", body))
    daemon.wait_state("a", "failed")
    pid = int(notes(folder)[0])
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of what it had started")


def test_a_process_that_comes_back_from_the_function_says_nothing_for_it(spawnd: Start, folder: Path) -> None:
    body = 'function start() local child = proc.fork() if child == 0 then return false end note("parent") end'
    daemon = spawnd(NOTE + module("a", body))
    daemon.wait_state("a", "running")
    assert notes(folder) == ["parent"]


def test_the_error_of_such_a_process_is_told(spawnd: Start) -> None:
    body = 'function start() if proc.fork() == 0 then error("in the child", 0) end end'
    daemon = spawnd(module("a", body) + module("b", "function start() if proc.fork() == 0 then return false end end"))
    daemon.wait_state("a", "running")
    daemon.wait_state("b", "running")
    wait_until(lambda: daemon.ctl("logs", "a").stdout.startswith("start failed: in the child\n"), "what went wrong")
    assert daemon.ctl("logs", "b").stdout == ""


def test_what_is_written_and_not_closed_is_written(spawnd: Start, folder: Path) -> None:
    body = 'function start() io.write("to the log") io.open("@/out/file", "w"):write("to a file") end'
    daemon = spawnd(module("a", body))
    daemon.wait_state("a", "running")
    wait_until(lambda: daemon.ctl("logs", "a").stdout == "to the log\n", "what it said")
    assert (folder / "out" / "file").read_text() == "to a file"


def test_a_function_that_has_closed_everything_has_succeeded(spawnd: Start, folder: Path) -> None:
    body = 'function start() fsys.close(3, 1000) for i = 1, 9 do fsys.open("@/out/file", "a") end end'
    daemon = spawnd(module("a", body))
    daemon.wait_state("a", "running")
    assert (folder / "out" / "file").read_text() == ""


# restart, reload, status


def test_restart_is_a_function_or_stop_and_start(spawnd: Start, folder: Path) -> None:
    both = 'function start() note("start") end function stop() note("stop") end'
    daemon = spawnd(NOTE + module("a", both) + module("b", f'{both} function restart() note("restart") end', "a"))
    daemon.wait_state("b", "running")
    assert daemon.ctl("restart", "a").returncode == 0
    assert notes(folder) == ["start", "start", "stop", "start"]
    assert daemon.ctl("restart", "b").returncode == 0
    assert notes(folder)[4:] == ["restart"]


@needs_root
def test_a_restart_ends_what_start_has_left_where_there_is_no_stop(spawnd: Start, folder: Path) -> None:
    body = """
    function start()
      local child = proc.fork()
      if child == 0 then proc.exec("/bin/sleep", { "424245" }) end
      note(child)
    end
    """
    daemon = spawnd(NOTE + module("a", body))
    daemon.wait_state("a", "running")
    assert daemon.ctl("restart", "a").returncode == 0
    first, second = map(int, notes(folder))
    daemon.remember([second])
    wait_until(lambda: not Path(f"/proc/{first}").exists(), "the end of what the first start had left")
    assert Path(f"/proc/{second}").exists()


def test_reload(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(
        NOTE
        + module("a", 'function start() end function reload() note("reload") end')
        + module("b", 'function start() end function reload() return nil, "not now" end')
        + module("c", "function start() end")
    )
    for name in "abc":
        daemon.wait_state(name, "running")
    assert daemon.ctl("reload", "a").returncode == 0
    assert notes(folder) == ["reload"]
    failed = daemon.ctl("reload", "b")
    assert (failed.returncode, failed.stderr) == (1, "b: running: reload failed: not now\n")
    assert daemon.ctl("reload", "c").stderr == "c: running: it has no function reload\n"
    assert daemon.ctl("reload", "all").returncode == 1
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: len(notes(folder)) == 3, "the reload that HUP asks for")


def test_of_many_a_few_reload_at_a_time(spawnd: Start, folder: Path) -> None:
    body = """
    function start() end
    function reload()
      fsys.write("@/out/" .. _NAME, "")
      proc.run("sleep", "0.1")
      note(#fsys.dir("@/out") - 1)
      return fsys.remove("@/out/" .. _NAME)
    end
    """
    (folder / "out" / "notes").touch()
    daemon = spawnd(NOTE + "".join(module(f"s{number}", body) for number in range(30)))
    for number in range(30):
        daemon.wait_state(f"s{number}", "running")
    assert daemon.ctl("reload", "all").returncode == 0
    at_once = [int(note) for note in notes(folder)]
    assert len(at_once) == 30
    assert max(at_once) <= 8


STATUSES = {
    'return "42 rules"': "42 rules",
    "return 42": "42",
    "return { rules = 42, chains = 3 }": "chains=3, rules=42",
    "return": "",
    "return true": "",
    'return nil, "no answer"': "status failed: no answer",
    'error("boom", 0)': "status failed: boom",
}


def test_status_is_added(spawnd: Start) -> None:
    names = {body: f"s{number}" for number, body in enumerate(STATUSES)}
    functions = "function start() end function status()"
    daemon = spawnd("".join(module(name, f"{functions} {body} end") for body, name in names.items()))
    for name in names.values():
        daemon.wait_state(name, "running")
    assert statuses(daemon, names) == {body: ("running", says) for body, says in STATUSES.items()}
    assert daemon.ctl("stop", "all").returncode == 0
    assert statuses(daemon, names) == dict.fromkeys(names, ("stopped", ""))


def statuses(daemon: Daemon, names: dict[str, str]) -> dict[str, tuple[str, str]]:
    """State and status text by the function that adds to it."""
    rows = {row["name"]: row for row in json.loads(daemon.ctl("status", "--json", *names.values()).stdout)}
    return {body: (rows[name]["state"], rows[name]["status_text"]) for body, name in names.items()}
