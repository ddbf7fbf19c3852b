"""The process of a service: every key that shapes it, from the definition to the kernel's own view."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start

Program = Callable[[str, str], str]

REPORT = f"""#!{sys.executable} -IS
import json, os, resource, stat, sys, time
def target(fd):
    return os.readlink("/proc/self/fd/%d" % fd)
fds = sorted(int(name) for name in os.listdir("/proc/self/fd"))
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
report = {{
    "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "umask": int(status["Umask"], 8),
    "uids": status["Uid"].split(), "gids": status["Gid"].split(), "groups": status["Groups"].split(),
    "caps": [status["CapPrm"].strip(), status["CapEff"].strip(), status["CapAmb"].strip(), status["CapBnd"].strip()],
    "no_new_privs": status["NoNewPrivs"].strip(),
    "blocked": status["SigBlk"].strip(), "ignored": status["SigIgn"].strip(),
    "fds": {{fd: target(fd) for fd in fds if os.path.exists("/proc/self/fd/%d" % fd)}},
    "limits": open("/proc/self/limits").read(), "nice": os.nice(0), "cpus": sorted(os.sched_getaffinity(0)),
    "oom": open("/proc/self/oom_score_adj").read().strip(), "sid": os.getsid(0) == os.getpid(),
    "pgid": os.getpgid(0) == os.getpid(),
}}
out = os.environ.get("OUT", "/")
with open(out + ".new", "w") as file:
    json.dump(report, file)
os.rename(out + ".new", out)
time.sleep(100000)
"""


@pytest.fixture
def report(spawnd: Start, program: Program, folder: Path) -> Callable[..., dict[str, Any]]:
    """Runs a service with the given keys and returns what it found."""

    def run(keys: str, env: str = "") -> dict[str, Any]:
        script = program("report", REPORT)
        out = folder / "out" / "report"
        daemon: Daemon = spawnd(f's = {{ exec = "{script}", env = {{ OUT = "{out}", {env} }}, {keys} }}')
        wait_until(out.exists, f"the report:\n{daemon.log()}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    return run


def paths(found: dict[str, Any]) -> dict[int, str]:
    """Descriptors by number, less the one that the report itself reads the folder with."""
    return {int(fd): path for fd, path in found["fds"].items() if not path.startswith("/proc/")}


def test_the_defaults(report: Callable[..., dict[str, Any]]) -> None:
    found = report("")
    assert paths(found) == {0: "/dev/null", 1: "/dev/null", 2: "/dev/null"}
    # LC_CTYPE is Python's own, the mark is for services without a cgroup
    assert set(found["env"]) - {"LC_CTYPE", "SPAWND_MARK"} == {"OUT"}
    assert found["cwd"] == "/"
    assert found["umask"] == 0o077
    assert found["argv"] == [found["argv"][0]]
    assert (found["sid"], found["pgid"]) == (True, True)
    assert int(found["blocked"], 16) == 0
    # Python ignores PIPE and XFSZ by itself, 32 and 33 are the C library's: nothing else may be inherited as ignored
    assert int(found["ignored"], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        assert found["uids"] == [str(nobody.pw_uid)] * 4
        assert found["groups"] == []
        assert found["caps"][:3] == ["0" * 16] * 3


def test_descriptors_in_table_order(report: Callable[..., dict[str, Any]], folder: Path) -> None:
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o600)
    found = report(
        'fd = { udp("127.0.0.1", 0, { name = "first" }), file("@/secret"), stream("\\64abstract"), file("/dev/null") },'
        'stdout = file("@/stdout", "w"), stderr = file("@/stderr", "a")'
    )
    by_number = paths(found)
    assert sorted(by_number) == [0, 1, 2, 3, 4, 5, 6]
    assert by_number[1] == f"{folder}/stdout"
    assert by_number[2] == f"{folder}/stderr"
    assert by_number[3].startswith("socket:")
    assert by_number[4] == f"{folder}/secret"
    assert by_number[5].startswith("socket:")
    assert by_number[6] == "/dev/null"
    assert found["env"]["LISTEN_FDS"] == "4"
    assert found["env"]["LISTEN_FDNAMES"] == "first:secret:abstract:null"


def test_arguments_environment_and_files(report: Callable[..., dict[str, Any]], folder: Path) -> None:
    (folder / "secrets").write_text('# comment\nPHRASE="two words"\nOTHER=x\n')
    (folder / "secrets").chmod(0o600)
    found = report('arg = { "-v", 7 }, env_file = "@/secrets", cwd = "@/out", umask = "----w--w-"', env='X = "1"')
    assert found["argv"][1:] == ["-v", "7"]
    assert found["env"]["PHRASE"] == "two words"
    assert (found["env"]["OTHER"], found["env"]["X"]) == ("x", "1")
    assert found["cwd"] == f"{folder}/out"
    assert found["umask"] == 0o022


def test_limits(report: Callable[..., dict[str, Any]]) -> None:
    found = report(
        'limits = { cpu = "5m", core = 0, nofile = 64, stack = "2m", nproc = 900,'
        'data = { soft = "512m", hard = "1g" } }'
    )
    lines = {line[:26].strip(): line[26:].split() for line in found["limits"].splitlines()[1:]}
    assert lines["Max cpu time"][:2] == ["300", "300"]
    assert lines["Max core file size"][:2] == ["0", "0"]
    assert lines["Max open files"][:2] == ["64", "64"]
    assert lines["Max stack size"][:2] == [str(2 << 20)] * 2
    assert lines["Max data size"][:2] == [str(512 << 20), str(1 << 30)]
    assert lines["Max processes"][:2] == ["900", "900"]


def test_scheduling(report: Callable[..., dict[str, Any]]) -> None:
    cpu = min(os.sched_getaffinity(0))
    found = report(f"nice = 7, cpu_affinity = {{ {cpu} }}, oom_score_adj = 555, no_new_privs = true")
    assert (found["nice"], found["cpus"], found["oom"], found["no_new_privs"]) == (7, [cpu], "555", "1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: users, groups, capabilities")
def test_user_groups_and_capabilities(report: Callable[..., dict[str, Any]]) -> None:
    found = report(
        'user = "daemon", group = "daemon", groups = { "adm", "mail" },'
        'capabilities = { keep = { "net_bind_service", "CAP_NET_RAW" } }'
    )
    assert found["uids"] == [str(pwd.getpwnam("daemon").pw_uid)] * 4
    assert found["gids"] == [str(grp.getgrnam("daemon").gr_gid)] * 4
    assert sorted(found["groups"]) == sorted(str(grp.getgrnam(name).gr_gid) for name in ("adm", "mail"))
    kept = f"{1 << 10 | 1 << 13:016x}"
    assert found["caps"] == [kept] * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: users, groups")
def test_root_does_not_bring_its_group(report: Callable[..., dict[str, Any]]) -> None:
    found = report('user = "root"')
    assert (set(found["uids"]), set(found["gids"])) == ({"0"}, {str(grp.getgrnam("nogroup").gr_gid)})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: capabilities")
def test_capabilities_of_a_root_service(report: Callable[..., dict[str, Any]]) -> None:
    found = report('user = "root", group = "root", capabilities = { keep = { "kill" } }')
    kept = f"{1 << 5:016x}"
    assert (found["caps"][0], found["caps"][1], found["caps"][3]) == (kept, kept, kept)


def test_a_listening_unix_socket(spawnd: Start, folder: Path) -> None:
    path = folder / "listener"
    daemon = spawnd('s = { exec = "/bin/sleep", arg = { "100000" }, fd = { stream("@/listener", { mode = "0600" }) } }')
    daemon.wait_state("s", "running")
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert daemon.ctl("stop", "s").returncode == 0
    assert not path.exists()


def test_signals_that_are_ignored_when_spawnd_starts_are_default_in_services(folder: Path) -> None:
    numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3)
    ignore = f"[signal.signal(number, signal.SIG_IGN) for number in {tuple(map(int, numbers))}]"
    out = folder / "out" / "signals"
    script = f"grep Sig /proc/self/status > {out}.new; mv {out}.new {out}; exec sleep 1000"
    daemon = Daemon(folder, f's = {{ exec = "/bin/sh", arg = {{ "-c", "{script}" }} }}')
    daemon.prefix = [sys.executable, "-c", f"import os, signal, sys; {ignore}; os.execv(sys.argv[1], sys.argv[1:])"]
    with daemon:
        wait_until(out.exists, "the signals of a service")
        masks = dict(row.split(":\t") for row in out.read_text().splitlines())
        assert int(masks["SigIgn"], 16) & sum(1 << number - 1 for number in numbers) == 0
        assert int(masks["SigBlk"], 16) == 0
