"""The report of the child, and its reader in spawnd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from supervisor.definitions.evaluate import write_report
from supervisor.definitions.report import read_report
from supervisor.definitions.service import KEYS, Definitions, Descriptor, Service, Settings
from supervisor.errors import DefinitionsError
from tests.unit.definitions.loading import Files, encode, load_paths, records

FULL = """
_SUPERVISOR = { log_level = "debug" }
x = {
  exec = "/x", description = "d", arg = { "-v" }, env = { A = "b" }, env_file = "/e", user = "root", group = "root",
  groups = { "root", "daemon" }, cwd = "/tmp", umask = "022", chroot = "/c", stdin = file("/i"), stdout = log(),
  stderr = tcp("127.0.0.1", 1, { netns = false }), fd = { stream("/s", { backlog = 7 }), file("/f", "w") },
  limits = { nofile = { soft = 1, hard = "unlimited" } }, capabilities = { keep = { "chown" } }, no_new_privs = true,
  nice = 1, cpu_affinity = "0-1", oom_score_adj = 1, memory_max = 1, netns = "n", depends = "y", after = "y",
  conflicts = "z", status = "stop", restart = "never", healthy_after = 2, backoff = { first = 1 },
  start_limit = false, ready = "fd", ready_fd = 9, start_timeout = false, stop_timeout = 0.5, stop_signal = "INT",
  handover_signal = 10, reload_signal = 1, restart_signal = 40, kill_mode = "process", watchdog = 3,
  fdstore_max = 2, control = true, check = { "/bin/true" }, login_env = true, expand_env = true, listen_fds = false,
  io_class = "realtime", io_priority = 7, scheduling = "rr:5", timer_slack = "0.05ms", success_status = { 143, 2 },
  no_restart_status = 78, argv0 = "-x",
}
y = { worker = "accessory", task = true, options = { a = { b = { 1, 2.5, true, "x" } } } }
z = { exec = "/x" }
b = { exec = "/x", forking = true, pid_file = "/p" }
a = { exec = "/x", fd = { seqpacket("/a") }, accept = { max = 3, per_source = { n = 2, v4 = 24 }, linger = false,
  session_cgroup = true } }
t = { exec = "/x", fd = { tcp("127.0.0.1", 2) }, accept = true, status = "stop" }
i = { exec = "/x", fd = { tcp("127.0.0.1", 3) }, status = "demand", idle_stop = "5m", idle_cpu = "1%" }
r = { exec = "/x", fd = { tcp("127.0.0.1", 5), stream("/r") }, accept = {
  rate = "50/m", burst = 7, source_rate = "3/h", only_from = { "10.0.0.0/8", "::1", "root", "@daemon" },
  no_access = "10.1.2.3", hours = { "mon-fri 08:00-18:00", "sat 22:00-06:00", "00:00-01:00" }, load_max = 2.5,
  memory_min = "64m", banner = "/b", banner_refused = "/c" } }
d = { fd = { tcp("127.0.0.1", 4) }, accept = { trap = true, deny_time = "2h", defer_accept = 5, interface = "lo" } }
f = { exec = "/x", fd = { udp("127.0.0.1", 2) }, status = "demand", flush = true }
"""
MODULE = """
module("m")
exec, user, function_user = "/x", "daemon", "root"
function start() end
"""


def test_every_field_survives(files: Files) -> None:
    x = files.load(FULL).services["x"]
    assert x == Service(
        name="x", file=x.file, line=3, exec="/x", description="d", argv0="-x", arg=("-v",), env={"A": "b"},
        env_file=("/e",),
        user="root", group="root", groups=("root", "daemon"), uid=0, gid=0, gids=x.gids, cwd="/tmp", umask=0o022,
        chroot="/c", stdin=Descriptor("file", "stdin", path="/i", access="r"), stdout=Descriptor("log", "stdout"),
        stderr=Descriptor("tcp", "stderr", host="127.0.0.1", port=1),
        fd=(Descriptor("stream", "s", path="/s", backlog=7), Descriptor("file", "f", path="/f", access="w")),
        limits={"nofile": (1, -1)}, capabilities=("chown",), no_new_privs=True, nice=1, cpu_affinity=(0, 1),
        oom_score_adj=1, resources={"memory_max": "1"}, netns="n", depends=("y",), after=("y",), conflicts=("z",),
        autostart=False, restart="never", healthy_after=2.0, backoff=x.backoff, start_limit=None, ready="fd",
        ready_fd=9, start_timeout=None, stop_timeout=0.5, stop_signal=2, handover_signal=10, reload_signal=1,
        restart_signal=40, kill_mode="process", watchdog=3.0, fdstore_max=2, control=True, check=("/bin/true",),
        login_env=x.login_env, expand_env=True, listen_fds=False, io_class="realtime", io_priority=7, scheduling="rr:5",
        timer_slack=5e-05, success_status=(2, 143), no_restart_status=(78,),
    )  # fmt: skip
    assert x.backoff.first == 1.0
    assert x.gids[0] == 0
    assert x.lines["check"] == 12
    assert x.login_env["HOME"] == "/root"


def test_no_key_is_missed(files: Files) -> None:
    services = [*files.load(FULL).services.values(), *files.load(MODULE).services.values()]
    given = {key for service in services for key in service.lines}
    resources = {key for key in KEYS if KEYS[key].field == "resources"}
    assert KEYS.keys() - given - (resources - {"memory_max"}) == set(), "add the key to FULL"


def test_every_field_of_a_module_survives(files: Files) -> None:
    m = files.load(MODULE).services["m"]
    assert (m.function_user, m.function_ids, m.functions) == ("root", (0, 0), ("start",))


def test_other_services_and_settings(files: Files) -> None:
    definitions = files.load(FULL)
    y = definitions.services["y"]
    b = definitions.services["b"]
    assert (b.forking, b.pid_file) == (True, "/p")
    assert (y.worker, y.task, y.restart) == ("accessory", True, "never")
    assert y.options == {"a": {"b": [1, 2.5, True, "x"]}}
    assert definitions.settings == Settings(log_level="debug")
    assert definitions.sources == {os.fspath(files.folder / "a.lua"): FULL}


def test_only_what_differs_is_written(files: Files) -> None:
    found = records(files.write('x = { exec = "/x" }'))
    (service,) = [record["service"] for record in found if "service" in record]
    assert service.keys() - {"group"} == {"name", "file", "line", "lines", "exec"}


def test_equal_values_are_shared(files: Files) -> None:
    text = "".join(
        f'x{i} = {{ exec = "/bin/sleep", arg = {{ "1000" }}, env = {{ A = "b" }}, limits = {{ nofile = 64 }}, '
        f'stdin = file("/x") }}\n'
        for i in range(2)
    )
    one, other = files.load(text).services.values()
    assert one.lines != other.lines
    for name in ("exec", "arg", "env", "limits", "stdin", "options", "fd", "user", "group", "resources"):
        assert getattr(one, name) is getattr(other, name), name


def test_the_numbers_of_lines_are_shared(files: Files) -> None:
    files.write('-- a comment\nx = { exec = "/x",\n  cwd = "/" }', "1.lua")
    files.write('-- another\ny = { exec = "/y",\n  cwd = "/" }', "2.lua")
    files.write("\n" * 999 + 'z = { exec = "/z", cwd = "/" }', "3.lua")
    one, other, last = load_paths(files.folder).services.values()
    assert one.lines == other.lines == {"exec": 2, "cwd": 3}
    assert last.lines["exec"] is last.lines["cwd"]  # as a number of its own each would take 32 bytes


def test_a_definition_that_moved_differs_in_its_line_alone(files: Files) -> None:
    before, after = (files.load(text + FULL).services["y"] for text in ("", "\n"))
    assert before.lines != after.lines
    assert replace(before, line=after.line) == after


@pytest.mark.parametrize("failure", ["took longer than 5 s; an endless loop?", ""])
def test_a_report_that_was_cut_off(files: Files, failure: str) -> None:
    files.write('x = { exec = "/x" }', "1.lua")
    files.write("y = 3", "2.lua")
    data = encode(records(files.folder))
    start = data.index(b'{"file": "%s' % os.fsencode(files.folder / "2.lua"))
    cut = data[: data.index(b"\n", start) + 1]
    with pytest.raises(DefinitionsError) as caught:
        read_report(cut + b'{"serv', failure)
    expected = failure or "the evaluation ended without a result"
    assert caught.value.problems == [f"{files.folder}/2.lua:1: {expected}"]
    assert caught.value.passing


def test_cut_off_at_a_look_up() -> None:
    data = encode([{"file": "a.lua"}, {"at": "a.lua:3", "doing": "look up host 'x'"}])
    with pytest.raises(DefinitionsError) as caught:
        read_report(data, "took longer than 5 s")
    assert caught.value.problems == ["a.lua:3: cannot look up host 'x': took longer than 5 s"]


def test_cut_off_at_once() -> None:
    with pytest.raises(DefinitionsError, match="definitions: killed by SIGKILL"):
        read_report(b"", "killed by SIGKILL")


def test_problems_that_came_before_the_end_are_kept() -> None:
    data = encode([{"file": "a.lua"}, {"problem": "a.lua:1: x"}])
    with pytest.raises(DefinitionsError) as caught:
        read_report(data, "killed")
    assert caught.value.problems == ["a.lua:1: x", "a.lua:1: killed"]


def test_through_a_pipe(files: Files) -> None:
    path = files.write('x = { exec = "/x" }')
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_fd)
            write_report([os.fspath(path)], write_fd, deadline_s=20, root=True)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert list(read_report(data).services) == ["x"]


def test_spawnd_does_not_import_what_the_child_needs() -> None:
    code = "import sys, supervisor.definitions.report; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("lupa", "pwd'", "grp'", "evaluate", "difflib", "asyncio", "subprocess"):
        assert name not in modules.replace("supervisor.definitions.report", "")


def test_empty() -> None:
    assert read_report(encode([{"end": True}])) == Definitions()


def test_a_child_that_had_to_be_killed(files: Files) -> None:
    files.write('x = { exec = "/x" }', "1.lua")
    # a loop in C that no hook of Lua ever interrupts
    stuck = files.write('local s = ("a"):rep(30000)\nreturn s:find((".-"):rep(12) .. "b")', "2.lua")
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_report([os.fspath(files.folder)], write_fd, deadline_s=0.1, root=True)
        finally:
            os._exit(1)
    os.close(write_fd)
    data = b""
    with open(read_fd, "rb", buffering=0) as pipe:
        while os.fsencode(stuck) not in data:
            data += pipe.read(4096)
        os.kill(pid, signal.SIGKILL)
        data += pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with pytest.raises(DefinitionsError) as caught:
        read_report(data, "took longer than 5 s; an endless loop?")
    assert caught.value.problems == [f"{stuck}:1: took longer than 5 s; an endless loop?"]


def digest(files: Files, text: str) -> str:
    return read_report(encode(records(files.write(text), digest=True))).digest


def test_a_digest_is_of_what_is_defined(files: Files) -> None:
    found = digest(files, FULL)
    assert len(found) == 64
    assert found == digest(files, f"\n-- moved\n{FULL}")
    assert files.load(FULL).digest == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('log_level = "debug"', 'log_level = "info"'),
        ('description = "d"', 'description = "e"'),
        ("{ 1, 2.5, true,", "{ true, 2.5, true,"),
        ("y = { worker", 'y = { stdout = file("/dev/null", "w"), worker'),
        ('z = { exec = "/x" }', ""),
        ('z = { exec = "/x" }', 'z = { exec = "/x" }\nw = { exec = "/x" }'),
    ],
)
def test_a_digest_of_others_is_another(files: Files, old: str, new: str) -> None:
    before = FULL.replace('conflicts = "z", ', "")
    assert old in before
    assert digest(files, before) != digest(files, before.replace(old, new))


def test_a_digest_does_not_depend_on_the_order_of_keys(files: Files) -> None:
    one = 'x = { worker = "accessory", options = { a = 1, b = 2 }, env = { A = 1, B = 2 } }'
    other = 'x = { env = { B = 2, A = 1 }, options = { b = 2, a = 1 }, worker = "accessory" }'
    assert digest(files, one) == digest(files, other)


def test_settings_know_where_they_are_given(files: Files) -> None:
    settings = files.load('_SUPERVISOR = {\n  log_level = "debug",\n}\n').settings
    assert settings.places == {"log_level": f"{files.folder}/a.lua:2"}
    assert settings == Settings(log_level="debug")
