"""Every key: values that it takes, and values that it refuses with what the message says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import pytest

from supervisor.definitions.service import KEYS, Accept, Backoff, Descriptor
from tests.unit.definitions.loading import Files

UNLIMITED = -1

GOOD: list[tuple[str, str, object]] = [
    ("description = [[two\n  lines]]", "description", "two lines"),
    ('arg = { "-v", 5, 1.5 }', "arg", ("-v", "5", "1.5")),
    ("arg = {}", "arg", ()),
    ('argv0 = "-sh"', "argv0", "-sh"),
    ('env = { A = "b", C = 3 }', "env", {"A": "b", "C": "3"}),
    ('env_file = "/etc/x"', "env_file", ("/etc/x",)),
    ('env_file = { "/etc/x", "/etc/y" }', "env_file", ("/etc/x", "/etc/y")),
    ('check = { "/bin/true", "-x", 1 }', "check", ("/bin/true", "-x", "1")),
    ('user = "root"', "uid", 0),
    ("user = 4711", "uid", 4711),
    ('user = "4711"', "user", "4711"),
    ('group = "root"', "gid", 0),
    ('groups = { "root", "daemon" }', "groups", ("root", "daemon")),
    ('groups = "root"', "gids", (0,)),
    ('cwd = "/tmp"', "cwd", "/tmp"),
    ('umask = "----w--w-"', "umask", 0o022),
    ('umask = "027"', "umask", 0o027),
    ("groups = 0", "groups", ("0",)),
    ("success_status = 1", "success_status", (1,)),
    ("no_restart_status = { 7, 2, 7 }", "no_restart_status", (2, 7)),
    ('chroot = "/srv"', "chroot", "/srv"),
    ('netns = "blue"', "netns", "blue"),
    ('capabilities = { keep = { "CAP_NET_ADMIN", "chown" } }', "capabilities", ("chown", "net_admin")),
    ("capabilities = { keep = {} }", "capabilities", ()),
    ("no_new_privs = true", "no_new_privs", True),
    ("fdstore_max = 8", "fdstore_max", 8),
    ("control = true", "control", True),
    ('limits = { data = "5m" }', "limits", {"data": (5 << 20, 5 << 20)}),
    ('limits = { cpu = "5m" }', "limits", {"cpu": (300, 300)}),
    ('limits = { rttime = "1.5ms" }', "limits", {"rttime": (1500, 1500)}),
    ('limits = { nofile = "unlimited" }', "limits", {"nofile": (UNLIMITED, UNLIMITED)}),
    ('limits = { core = { soft = 0, hard = "unlimited" } }', "limits", {"core": (0, UNLIMITED)}),
    ("nice = -20", "nice", -20),
    ('env_file = "-/etc/x"', "env_file", ("-/etc/x",)),
    ("forking = true", "forking", True),
    ('forking = true, pid_file = "/run/x"', "pid_file", "/run/x"),
    ("listen_fds = false", "listen_fds", False),
    ("expand_env = true", "expand_env", True),
    ("login_env = false", "login_env", {}),
    ('io_class = "idle"', "io_class", "idle"),
    ("io_priority = 7", "io_priority", 7),
    ('scheduling = "batch"', "scheduling", "batch"),
    ('scheduling = "fifo:010"', "scheduling", "fifo:10"),
    ('timer_slack = "0.05ms"', "timer_slack", 5e-05),
    ("success_status = 143", "success_status", (143,)),
    ("success_status = { 3, 1, 3 }", "success_status", (1, 3)),
    ("no_restart_status = { 78 }", "no_restart_status", (78,)),
    ("cpu_affinity = { 3, 0 }", "cpu_affinity", (0, 3)),
    ('cpu_affinity = "0-2, 5"', "cpu_affinity", (0, 1, 2, 5)),
    ("oom_score_adj = -1000", "oom_score_adj", -1000),
    ('memory_max = "1g"', "resources", {"memory_max": str(1 << 30)}),
    ("memory_high = 4096", "resources", {"memory_high": "4096"}),
    ('memory_swap_max = "unlimited"', "resources", {"memory_swap_max": "max"}),
    ("cpu_weight = 10000", "resources", {"cpu_weight": "10000"}),
    ('cpu_max = "150%"', "resources", {"cpu_max": "150000 100000"}),
    ('cpu_max = "unlimited"', "resources", {"cpu_max": "max 100000"}),
    ('cpu_max = "12.5 %"', "resources", {"cpu_max": "12500 100000"}),
    ("pids_max = 10", "resources", {"pids_max": "10"}),
    ('pids_max = "unlimited"', "resources", {"pids_max": "max"}),
    ("io_weight = 1", "resources", {"io_weight": "1"}),
    ('status = "stop"', "autostart", False),
    ('status = "start"', "autostart", True),
    ("task = true", "restart", "never"),
    ('task = true, restart = "on-failure"', "restart", "on-failure"),
    ("healthy_after = 0", "healthy_after", 0.0),
    ('backoff = { first = "200ms", factor = 1.5 }', "backoff", Backoff(first=0.2, factor=1.5)),
    ("start_limit = false", "start_limit", None),
    ("accept = false", "accept", None),
    ("flush = true, status = 'demand', fd = { dgram('/s') }", "flush", True),
    ("accept = true, fd = { stream('/s') }", "accept", Accept()),
    ("accept = true, fd = { stream('/s') }", "demand", True),
    ("accept = true, fd = { stream('/s') }", "start_limit", None),
    ("accept = true, fd = { stream('/s') }", "stderr", Descriptor("log", "stderr")),
    ("accept = true, status = 'stop', fd = { stream('/s') }", "autostart", False),
    (
        "accept = { descriptor = 3, max = 9, per_source = { n = 2, v6 = 56 }, linger = false }, fd = { stream('/s') }",
        "accept",
        Accept(descriptor=3, max=9, per_source=2, v6=56, linger=None),
    ),
    (
        "accept = { per_source = 3, session_timeout = '1h', session_log = 'all' }, fd = { stream('/s') }",
        "accept",
        Accept(per_source=3, session_timeout=3600.0, session_log="all"),
    ),
    ("accept = { session_cgroup = true }, fd = { stream('/s') }", "accept", Accept(session_cgroup=True)),
    ("start_limit = 3", "start_limit", 3),
    ("idle_stop = false", "idle_stop", None),
    ("idle_stop = '5m', status = 'demand', fd = { stream('/s') }", "idle_stop", 300.0),
    ("idle_stop = '10ms', status = 'demand', fd = { stream('/s') }", "idle_stop", 0.01),
    ("idle_stop = 1, status = 'demand', fd = { stream('/s') }", "idle_cpu", 0.002),
    ("idle_stop = 1, idle_cpu = '1.5%', status = 'demand', fd = { stream('/s') }", "idle_cpu", 0.015),
    ('ready = "notify"', "ready", "notify"),
    ('ready = "fd"', "ready_fd", 3),
    ('ready = "fd", fd = { file("/a") }, fdstore_max = 5, control = true', "ready_fd", 10),
    ('ready = "fd", ready_fd = 9', "ready_fd", 9),
    ("start_timeout = false", "start_timeout", None),
    ('stop_timeout = "1.5s"', "stop_timeout", 1.5),
    ('stop_timeout = "unlimited"', "stop_timeout", None),
    ("stop_timeout = 0", "stop_timeout", 0.0),
    ('stop_signal = "SIGINT"', "stop_signal", 2),
    ('handover_signal = "usr1"', "handover_signal", 10),
    ("reload_signal = 1", "reload_signal", 1),
    ('restart_signal = "RTMIN+1"', "restart_signal", 35),
    ('kill_mode = "process"', "kill_mode", "process"),
    ('kill_mode = "group"', "kill_mode", "group"),
    ('kill_mode = "mixed"', "kill_mode", "mixed"),
    ('watchdog = "10s"', "watchdog", 10.0),
    ("watchdog = false", "watchdog", None),
]

BAD: list[tuple[str, str]] = [
    ("accept = 1", "accept: has to be true, or a table with names, like { max = 100 }, not 1"),
    ("accept = { mx = 1 }", "accept.mx: unknown, did you mean 'max'?"),
    ("accept = { max = 0 }", "accept.max: 0 is out of range, from 1 to 16384"),
    ("accept = { descriptor = 1 }", "accept.descriptor: has to be 0, the connection is descriptors 0 and 1, or 3"),
    ("accept = { per_source = { v4 = 8 } }", "accept.per_source: has to say n, the number of sessions"),
    ("accept = { per_source = { n = 1, v5 = 8 } }", "accept.per_source: 'v5' is unknown, it has n, v4 and v6"),
    ("accept = { session_cgroup = 1 }", "accept.session_cgroup: has to be true or false, not 1"),
    ("accept = { trap = true, session_cgroup = true }", "accept.session_cgroup: is about sessions, and a trap"),
    ("accept = { on_limit = 'drop' }", "accept.on_limit: 'drop' is not 'wait' or 'refuse'"),
    ("accept = true", "accept: needs listening sockets in fd: tcp(…), stream(…) or seqpacket(…)"),
    ("accept = true, fd = { udp('::', 1) }", "fd[1]: udp [::]:1 has no connections: with accept, all of fd are"),
    ("accept = true, fd = { stream('/s', 'connect') }", "fd[1]: stream /s connected has no connections"),
    ("accept = true, fd = { stream('/s') }, stdin = file('/f')", "stdin: does not go with accept: the connection is"),
    ("accept = true, fd = { stream('/s') }, stdout = log()", "stdout: does not go with accept: the connection is"),
    ("accept = true, fd = { stream('/s') }, ready = 'notify'", "ready: does not go with accept: a session is started"),
    ("accept = true, fd = { stream('/s') }, watchdog = 1", "watchdog: does not go with accept: the main process is"),
    ("accept = true, fd = { stream('/s') }, task = true", "task: does not go with accept: there is no end of clients"),
    ("accept = true, fd = { stream('/s') }, fdstore_max = 1", "fdstore_max: does not go with accept: the main process"),
    ("accept = true, fd = { stream('/s') }, control = true", "control: does not go with accept: there are any number"),
    ("accept = true, fd = { stream('/s') }, forking = true", "forking: does not go with accept: a session ends with"),
    ("accept = true, fd = { stream('/s') }, reload_signal = 1", "reload_signal: does not go with accept: a signal"),
    ("accept = true, fd = { stream('/s') }, idle_stop = 5", "idle_stop: does not go with accept: the acceptor ends by"),
    ("idle_stop = 5", 'idle_stop: needs status = "demand": no client would wake the service again'),
    ("idle_stop = 5, status = 'stop', fd = { stream('/s') }", 'idle_stop: needs status = "demand"'),
    ("idle_stop = 5, status = 'demand', task = true, fd = { stream('/s') }", 'task: does not go with status = '),
    ("idle_stop = 0", "idle_stop: 0 is too short, the least is 10 ms; false means never"),
    ("idle_stop = 'soon'", "idle_stop: 'soon' is not a duration"),
    ("idle_cpu = '1%'", "idle_cpu: goes with idle_stop alone"),
    ("idle_stop = 5, idle_cpu = 1", "idle_cpu: 1 is not a share of a CPU (like \"0.2%\" or \"1%\")"),
    (
        "idle_stop = 5, status = 'demand', fd = { tcp('*', 1, { transparent = true }) }",
        "fd[1]: connections of tcp [::]:1 have any address (transparent), so idle_stop cannot see them",
    ),
    ("accept = true, fd = { stream('/s') }, kill_mode = 'process'", "kill_mode: does not go with accept: the end of"),
    ("description = 3", "description: has to be text, not 3"),
    ('exec = "bin/x"', "exec: 'bin/x' is not an absolute path"),
    ("exec = true", "exec: has to be text, not true"),
    ('exec = "/a\\0b"', "exec: '/a\\x00b' holds a NUL character"),
    ('exec = "/\\255"', "exec: '/\\xff' is not UTF-8"),
    ('worker = "accessory"', "worker: a service has either exec or worker"),
    ("options = { a = 1 }", "options: only a worker has options"),
    ('arg = "-v"', "arg: has to be a list, not '-v', write arg = { '-v' }"),
    ('arg = { "a", nil, "b" }', "arg: has to be a list, without holes"),
    ('arg = { x = "a" }', "arg: has to be a list, not a table"),
    ("argv0 = 1", "argv0: has to be text, not 1"),
    ("arg = { true }", "arg[1]: has to be text or a number, not true"),
    ('env = { "A=b" }', "env: has to be a table with names"),
    ('env = { ["A=B"] = "c" }', "env.A=B: 'A=B' cannot be the name of a variable"),
    ("env = { A = false }", "env.A: has to be text or a number, not false"),
    ("env = { A = { 1 } }", "env.A: has to be text or a number, not a list"),
    ('env_file = "x"', "env_file: 'x' is not an absolute path"),
    ('check = "/bin/true"', "check: has to be a list, not '/bin/true'"),
    ('check = { "true" }', "check: 'true' is not an absolute path"),
    ("check = {}", "check: has to name a program"),
    ('user = "rooot"', "user: unknown user 'rooot', did you mean 'root'?"),
    ("user = -1", "user: unknown user '-1'"),
    ("user = 4294967295", "user: unknown user '4294967295'"),
    ('user = "²"', "user: unknown user '²'"),
    ('group = "٣"', "group: unknown group '٣'"),
    ('user = "a\\0b"', "user: 'a\\x00b' holds a NUL character"),
    ('groups = { "a\\255" }', "groups[1]: 'a\\xff' is not UTF-8"),
    ("user = {}", "user: has to be a name or a number, not a table"),
    ('group = "no such group"', "group: unknown group 'no such group'"),
    ('groups = { "root", "daemn" }', "groups[2]: unknown group 'daemn', did you mean 'daemon'?"),
    ('cwd = "tmp"', "cwd: 'tmp' is not an absolute path"),
    ("umask = 022", 'umask: 22 is a number, which Lua reads as decimal: write it as text, like "022"'),
    ('umask = "rwxrwx---x"', "umask: 'rwxrwx---x' are not permissions"),
    ('umask = "w--------"', "umask: 'w--------' are not permissions"),
    ('umask = "088"', "umask: '088' are not permissions"),
    ('chroot = "srv"', "chroot: 'srv' is not an absolute path"),
    ('netns = "a/b"', "netns: 'a/b' is not a name"),
    ('netns = ".."', "netns: '..' is not a name"),
    ('capabilities = { "chown" }', "capabilities: has to be a table with names"),
    ('capabilities = { keep = { "net_amin" } }', "capabilities.keep[1]: unknown capability 'net_amin', did you mean"),
    ('capabilities = { keep = "chown" }', "capabilities.keep: has to be a list"),
    ("capabilities = {}", "capabilities: has to say which to keep"),
    ('capabilities = { keep = {}, drop = {} }', "capabilities.drop: unknown"),
    ("no_new_privs = 1", "no_new_privs: has to be true or false, not 1"),
    ("stdin = 0", "stdin: has to be made by a constructor"),
    ('stdin = file("/x", "w")', "stdin: opened with 'w' it cannot be read"),
    ('stdout = file("/x", "r")', "stdout: opened with 'r' it cannot be written"),
    ("stderr = {}", "stderr: has to be made by a constructor"),
    ('fd = udp("127.0.0.1", 1)', "fd: has to be a list, not udp(…)"),
    ('fd = { file("/a"), nil, file("/b") }', "fd: has to be a list, without holes"),
    ("fd = { log() }", "fd[1]: log() is for stdout and stderr alone"),
    ("fdstore_max = -1", "fdstore_max: -1 is out of range"),
    ('fdstore_max = "8"', "fdstore_max: has to be a whole number from 0 to 1000000, not '8'"),
    ("control = 1", "control: has to be true or false"),
    ('control = true, fd = { file("/control") }', "fd: another descriptor has the name 'control'"),
    ("limits = { nofiles = 3 }", "limits.nofiles: unknown resource, did you mean 'nofile'?"),
    ('limits = { nofile = "1k" }', "limits.nofile: '1k' is not a whole number"),
    ('limits = { cpu = "1.5s" }', "limits.cpu: '1.5s' is not a whole number of seconds"),
    ('limits = { data = "5s" }', "limits.data: '5s' is not a size"),
    ("limits = { core = -1 }", "limits.core: -1 is not a possible size"),
    ("limits = { core = 0/0 }", "limits.core: nan is not a size"),
    ("limits = { nofile = { soft = 2, hard = 1 } }", "limits.nofile: the soft limit 2 is above the hard limit 1"),
    ("limits = { nofile = { soft = 2 } }", "limits.nofile: a pair has to be { soft = …, hard = … }"),
    ("limits = { 3 }", "limits: has to be a table with names"),
    ("nice = 20", "nice: 20 is out of range, from -20 to 19"),
    ("nice = 1.5", "nice: has to be a whole number from -20 to 19, not 1.5"),
    ("cpu_affinity = {}", "cpu_affinity: has to name at least one CPU"),
    ('cpu_affinity = "3-1"', "cpu_affinity: '3-1' ends before it begins"),
    ('cpu_affinity = "a"', "cpu_affinity: 'a' is not a list of CPUs"),
    ("cpu_affinity = { -1 }", "cpu_affinity: -1 is not the number of a CPU"),
    ('cpu_affinity = "0-9999"', "cpu_affinity: 9999 is not a CPU"),
    ("cpu_affinity = true", "cpu_affinity: has to be a list of CPUs"),
    ("oom_score_adj = 1001", "oom_score_adj: 1001 is out of range"),
    ('memory_max = "1x"', "memory_max: '1x' is not a size"),
    ('memory_high = "1.5g"', "memory_high: '1.5g' is not a size"),
    ("memory_swap_max = {}", "memory_swap_max: a table is not a size"),
    ("cpu_weight = 0", "cpu_weight: 0 is out of range, from 1 to 10000"),
    ("cpu_max = 50", "cpu_max: 50 is not a share of a CPU"),
    ('cpu_max = "0.5%"', "cpu_max: '0.5%' is less than the 1% that the kernel can do"),
    ('pids_max = "many"', "pids_max: 'many' is not a whole number"),
    ('pids_max = "²"', "pids_max: '²' is not a whole number"),
    ("io_weight = 10001", "io_weight: 10001 is out of range"),
    ("depends = 3", "depends: has to be text, not 3"),
    ("depends = { web = 3 }", "depends: has to be text, not a table"),
    ("success_status = '1'", "success_status: has to be a whole number from 0 to 255, not '1', write 1 without quotes"),
    ("no_restart_status = { '7' }", "no_restart_status[1]: has to be a whole number from 0 to 255, not '7', write 7"),
    ("success_status = '256'", "success_status: has to be a whole number from 0 to 255, not '256'"),
    ("success_status = { 1, nil, 2 }", "success_status: has to be a list, without holes"),
    ("nice = '-5'", "nice: has to be a whole number from -20 to 19, not '-5', write -5 without quotes"),
    ('depends = { "a b" }', "depends[1]: 'a b' is not the name of a service"),
    ('after = { "nobody" }', "after[1]: unknown service 'nobody'"),
    ('conflicts = "x"', "conflicts[1]: a service cannot name itself"),
    ("flush = true, fd = { dgram('/s') }", 'flush: goes with status = "demand" alone'),
    (
        "flush = true, status = 'demand', fd = { stream('/s') }",
        "flush: needs a socket for datagrams in fd or stdin: udp(…) or dgram(…)",
    ),
    ('status = "stopp"', "status: 'stopp' is not 'stop' or 'start' or 'demand', did you mean 'stop'?"),
    ("task = 1", "task: has to be true or false"),
    ('task = true, restart = "always"', "restart: a task runs once"),
    ('restart = "onfailure"', "restart: 'onfailure' is not 'always' or 'on-failure' or 'never', did you mean"),
    ('healthy_after = "5x"', "healthy_after: '5x' is not a duration"),
    ("healthy_after = -1", "healthy_after: -1 is not a possible duration"),
    ("healthy_after = 1/0", "healthy_after: inf is not a possible duration"),
    ("backoff = 3", "backoff: has to be a table with names"),
    ("backoff = { frist = 1 }", "backoff.frist: unknown, it has first, factor, max and jitter, did you mean 'first'?"),
    ("backoff = { first = 0 }", "backoff.first: 0 is too short"),
    ("backoff = { factor = 0.5 }", "backoff.factor: has to be a number from 1 to 100, not 0.5"),
    ("backoff = { jitter = 2 }", "backoff.jitter: has to be a number from 0 to 1, not 2"),
    ('backoff = { first = "10s", max = "1s" }', "backoff: max (1 s) is less than first (10 s)"),
    ("start_limit = 0", "start_limit: 0 is out of range"),
    ("start_limit = true", "start_limit: has to be a whole number"),
    ('ready = "now"', "ready: 'now' is not 'exec' or 'notify' or 'fd'"),
    ("ready_fd = 4", 'ready_fd: goes with ready = "fd" alone'),
    ('ready = "fd", ready_fd = 3, fd = { file("/a") }', "ready_fd: 3 is taken by its table of 1 descriptor"),
    ('ready = "fd", ready_fd = 4, fdstore_max = 2', "the first free number is 5"),
    ("start_timeout = 0", "start_timeout: 0 is too short; false means no limit"),
    ("stop_timeout = true", "stop_timeout: true is not a duration"),
    ('stop_signal = "TREM"', "stop_signal: unknown signal 'TREM', did you mean 'TERM'?"),
    ('stop_signal = "²"', "stop_signal: unknown signal '²'"),
    ("stop_signal = 32", "stop_signal: 32 is not a signal"),
    ("handover_signal = false", "handover_signal: false is not a signal"),
    ('reload_signal = "RTMIN+31"', "reload_signal: 'RTMIN+31' is out of range"),
    ('restart_signal = "HUP"', "restart_signal: 'HUP' is not a real-time signal"),
    ('kill_mode = "none"', "kill_mode: 'none' is not 'all' or 'group' or 'mixed' or 'process'"),
    ("watchdog = 0", "watchdog: 0 is too short"),
    ("forking = 1", "forking: has to be true or false"),
    ('pid_file = "/run/x"', "pid_file: goes with forking = true alone"),
    ('forking = true, pid_file = "x"', "pid_file: 'x' is not an absolute path"),
    ('forking = true, ready = "notify"', "ready: does not go with forking = true"),
    ("forking = true, watchdog = 3", "watchdog: does not go with forking = true"),
    ("forking = true, task = true", "task: does not go with forking = true"),
    ('forking = true, kill_mode = "process"', "kill_mode: does not go with forking = true"),
    ('env_file = "-etc/x"', "'etc/x' is not an absolute path"),
    ('listen_fds = "no"', "listen_fds: has to be true or false"),
    ("expand_env = 1", "expand_env: has to be true or false"),
    ("login_env = 1", "login_env: has to be true or false"),
    ('user = "1234567", login_env = true', "login_env: user '1234567' has no entry"),
    ('io_class = "slow"', "io_class: 'slow' is not 'realtime' or 'best-effort' or 'idle'"),
    ("io_priority = 8", "io_priority: 8 is out of range, from 0 to 7"),
    ('io_class = "idle", io_priority = 3', 'io_priority: the io_class "idle" has no priorities'),
    ('scheduling = "fifo"', "scheduling: 'fifo' is not 'batch', 'idle', or like 'fifo:10'"),
    ('scheduling = "rr:100"', "scheduling: 100 is out of range for a priority, from 1 to 99"),
    ("timer_slack = 0", "timer_slack: has to be at least a nanosecond"),
    ("success_status = 256", "success_status: 256 is out of range"),
    ('no_restart_status = { "x" }', "no_restart_status[1]: has to be a whole number"),
    ('function_user = "root"', "function_user: is for the functions of a module"),
    ("nicee = 3", "unknown key 'nicee', did you mean 'nice'?"),
    ("nice = function() end", "nice: has to be a whole number from -20 to 19, not a function"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "field", "value"), GOOD, ids=[keys for keys, _, _ in GOOD])
def test_good(files: Files, keys: str, field: str, value: object) -> None:
    found = getattr(files.service(keys), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("keys", "message"), BAD, ids=[keys for keys, _ in BAD])
def test_bad(files: Files, keys: str, message: str) -> None:
    program = "" if keys.startswith("exec") else 'exec = "/bin/x",'
    problems = files.problems(f"x = {{\n  {program}\n  {keys}\n}}")
    assert any(problem.startswith("a.lua:3: x: ") and message in problem for problem in problems), problems


def given(examples: Iterable[str]) -> set[str]:
    """Return the keys that definitions give, without the names in their tables."""
    return {key for keys in examples for key in re.findall(r"(?:^|, )(\w+) = ", keys)}


def test_every_key_is_tested() -> None:
    elsewhere = {"exec", "worker", "options", "stdin", "stdout", "stderr", "fd"}
    elsewhere |= {"depends", "after", "conflicts", "function_user"}
    assert KEYS.keys() - given(keys for keys, _, _ in GOOD) - elsewhere == set(), "add a value that is taken to GOOD"
    assert KEYS.keys() - given(keys for keys, _ in BAD) == set(), "add a value that is refused to BAD"


def test_what_it_runs(files: Files) -> None:
    assert files.problems('x = { user = "root" }') == [
        'a.lua:1: x: has neither exec nor worker: say what it runs, like exec = "/usr/sbin/named"'
    ]
    assert any(
        "either exec or worker, not both" in text
        for text in files.problems('x = { exec = "/x", worker = "accessory" }')
    )


def test_worker(files: Files) -> None:
    text = 'x = { worker = "accessory", options = { list = { 1, "a" }, deep = { yes = true, none = {} } } }'
    service = files.load(text).services["x"]
    assert (service.worker, service.exec) == ("accessory", "")
    assert service.options == {"list": [1, "a"], "deep": {"yes": True, "none": []}}
    assert files.load('x = { worker = "accessory", options = {} }').services["x"].options == {}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('worker = "accesory"', "worker: unknown worker 'accesory', did you mean 'accessory'?"),
        ('worker = "log"', "worker: 'log' is built in and needs no definition"),
        ('worker = "lgo"', "worker: unknown worker 'lgo'"),
        ('worker = "runtime"', "worker: unknown worker 'runtime'"),
        ('worker = "../log"', "worker: '../log' is not the name of a worker"),
        ('worker = "accessory", options = { 1 }', "options: has to be a table with names"),
        ('worker = "accessory", options = { a = { b = print } }', "options.a.b: has to be plain data, not a function"),
        ('worker = "accessory", options = { a = { 1, log() } }', "options.a[2]: has to be plain data, not log(…)"),
        ('worker = "accessory", options = { ["\\255"] = 1 }', "options.\\xff: '\\xff' is not UTF-8"),
        ('worker = "accessory", options = { a = 1/0 }', "options.a: inf is not a number that can be passed on"),
        ('worker = "accessory", options = { a = { 1, nil, 3 } }', "options.a: has to be plain data, not a table that"),
    ],
)
def test_bad_worker(files: Files, keys: str, message: str) -> None:
    problems = files.problems(f"x = {{ {keys} }}")
    assert len(problems) == 1
    assert problems[0].startswith(f"a.lua:1: x: {message}")


def test_a_stop_without_time_gets_a_notice(files: Files) -> None:
    (notice,) = files.load('_DEFAULT = { stop_timeout = 0 }; x = { exec = "/x" }; y = { exec = "/y" }').notices
    assert notice.endswith("stop_timeout: 0 kills at once, without time to stop; false means no limit")
    assert not files.load('x = { exec = "/x", stop_timeout = false }').notices


def test_defaults(files: Files) -> None:
    service = files.service("")
    assert (service.user, service.uid, service.cwd, service.umask) == ("nobody", 65534, "/", 0o077)
    assert service.group in ("nobody", "nogroup")
    assert (service.arg, service.env, service.fd, service.limits, service.groups) == ((), {}, (), {}, ())
    assert (service.restart, service.start_limit, service.stop_timeout, service.autostart) == ("always", 10, 10.0, True)


def test_without_root_nobody_is_switched(files: Files) -> None:
    definitions = files.load('x = { exec = "/x", user = "no-such-user", group = "no-such-group" }', root=False)
    service = definitions.services["x"]
    assert (service.uid, service.gid) == (os.geteuid(), os.getegid())
    assert (service.user, service.group) == ("no-such-user", "no-such-group")
    assert len(definitions.notices) == 2
    assert all("not switched to without root" in notice for notice in definitions.notices)


@pytest.mark.parametrize(
    ("keys", "is_noted"),
    [
        ('user = "daemon"', True),
        ('user = "1"', True),
        ('user = "daemon", group = "nobody"', False),
        ('user = "nobody"', False),
        ('user = "root"', False),  # has every right without a group
        ('user = "root", umask = "027"', True),  # its files are open to other services
        ('user = "root", umask = "070"', False),
        ('user = "12345678"', False),  # is in no group
        ("", False),
    ],
)
def test_a_user_without_its_group_is_noted(files: Files, keys: str, is_noted: bool) -> None:
    notices = files.load(f'x = {{ exec = "/x", {keys} }}', root=True).notices
    noted = [text.partition(": ")[2] for text in notices if "runs with group" in text]
    name = keys.split('"')[1] if keys else ""
    own = "root" if name == "root" else "daemon"
    text = f"'{name}' runs with group 'nogroup', not its own: add group = \"{own}\", or group = \"nobody\""
    assert noted == [f"x: user: {text}"] * is_noted
