"""spawnd with whatever stdin, stdout and stderr its operator gives it: nobody's descriptors suffer for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.log.handler import JOURNAL_SOCKET
from tests.accessory import SHIPPED
from tests.daemon import Daemon, wait_until
from tests.namespaces import swept
from tests.unit.process.requirements import needs_ip, needs_root
from tests.unit.workers.reaper.ground import Ground, ground

pytestmark = [needs_root, needs_ip]

KINDS = ("file", "pipe", "terminal", "socket", "null", "closed")
HAS_JOURNAL = os.path.exists(JOURNAL_SOCKET)  # which has the output of services then
READABLE = ("file", "pipe", "terminal", "socket")
TABLES = [
    *((kind, kind, kind) for kind in KINDS),
    # each kind in each place, beside others
    *((kind, KINDS[(n + 2) % len(KINDS)], KINDS[(n + 3) % len(KINDS)]) for n, kind in enumerate(KINDS)),
]
EXECUTED_ANEW = [(kind, kind, kind) for kind in ("pipe", "terminal", "closed")]

SERVICES = """
says = { exec = "/bin/sh", arg = { "-c", "echo said; exec sleep 100000" }, env = { PATH = "/bin:/usr/bin" },
  fd = { file("@/passed", "r") }, stdout = log(), stderr = log() }
reads = { exec = "/bin/sh", arg = { "-c", "read word <&3; echo $word; exec sleep 100000" },
  env = { PATH = "/bin:/usr/bin" }, fd = { file("@/passed", "r") }, stdout = log(), stderr = log() }
reaper = {
  worker = "reaper", user = "root", group = "root", control = true, ready = "notify",
  options = { scopes = { "SCOPE/" }, spool = "@/out/spool", script = "@/reaper.lua" },
}
netns.NETNS = { setup = false }
"""
FUNCTIONS = """
module("called", package.seeall)
function start()
  print("called as root")
end
function stop() end
"""
OTHERS = """
module("apart", package.seeall)
user = "nobody"
function start()
  print("called as nobody")
end
function stop() end
"""
SAID = (
    "says: said",
    "reads: passed on",
    "called: called as root",
    "apart: called as nobody",
    "the script has begun",
)


class End:
    """The other end of one of 0, 1, 2: `fd` is what spawnd gets, None where that is closed."""

    def __init__(self, kind: str, path: Path) -> None:
        self._path, self._ours = path, -1
        self.fd: int | None = None
        self._said = b""
        match kind:
            case "file":
                self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            case "pipe":
                self._ours, self.fd = os.pipe()
            case "terminal":
                self._ours, self.fd = os.openpty()
            case "socket":
                ours, theirs = socket.socketpair()
                self._ours, self.fd = ours.detach(), theirs.detach()
            case "null":
                self.fd = os.open(os.devnull, os.O_RDWR)
        if self._ours >= 0:
            os.set_blocking(self._ours, False)

    def said(self) -> str:
        """All that has come."""
        if self._ours < 0:
            return self._path.read_text() if self._path.exists() else ""
        with suppress(BlockingIOError):
            while chunk := os.read(self._ours, 65536):
                self._said += chunk
        return self._said.decode()

    def close(self) -> None:
        for fd in (self.fd, self._ours):
            if fd is not None and fd >= 0:
                os.close(fd)


class DaemonOn(Daemon):
    """spawnd with descriptors of the test's on 0, 1 and 2."""

    def __init__(self, folder: Path, definitions: str, kinds: tuple[str, ...]) -> None:
        super().__init__(folder, definitions)
        self.ends = [End(kind, folder / f"stream-{n}") for n, kind in enumerate(kinds)]
        shut = " ".join(f"{n}<&-" for n, kind in enumerate(kinds) if kind == "closed")
        self.prefix = ["/bin/sh", "-c", f'exec "$@" {shut}', "sh"]

    def start(self) -> Daemon:
        stdin, stdout, stderr = (end.fd if end.fd is not None else subprocess.DEVNULL for end in self.ends)
        self.process = subprocess.Popen(self.command(), stdin=stdin, stdout=stdout, stderr=stderr)
        return self

    def log(self) -> str:
        return self.ends[2].said().replace("\r\n", "\n")

    def close(self) -> None:
        for end in self.ends:
            end.close()


@pytest.fixture
def own() -> Iterator[Ground]:
    with ground() as found:
        yield found


@pytest.fixture
def netns() -> Iterator[str]:
    found = f"st{os.getpid() % 100000}{uuid.uuid4().hex[:5]}"
    with swept(found):
        yield found


def definitions(folder: Path, scope: str, netns: str) -> str:
    (folder / "passed").write_text("passed on\n")
    (folder / "reaper.lua").write_text('print("the script has begun")\n')
    accessory = SHIPPED.read_text().replace("@cm4all-spawn", f"@stdio-{netns}")
    services = SERVICES.replace("@", str(folder)).replace("SCOPE", scope).replace("NETNS", netns)
    return services + accessory + FUNCTIONS + OTHERS


def all_are_up(daemon: Daemon, count: int) -> dict[str, dict[str, Any]]:
    def found() -> bool:
        rows.update(daemon.services())
        return [row["state"] for row in rows.values()] == ["running"] * count

    rows: dict[str, dict[str, Any]] = {}
    wait_until(found, "all services to run")
    return rows


@pytest.mark.parametrize("kinds", TABLES, ids="-".join)
def test_every_worker_function_and_service_has_its_own_descriptors(
    folder: Path, own: Ground, netns: str, kinds: tuple[str, ...]
) -> None:
    """Some go on: so it is after an exec and a crash."""
    with ExitStack() as stack:
        daemon = DaemonOn(folder, definitions(folder, own.scope, netns), kinds)
        stack.callback(daemon.close)
        stack.enter_context(daemon)
        rows = all_are_up(daemon, 7)
        assert {name: row["restarts"] for name, row in rows.items()} == dict.fromkeys(rows, 0)
        if kinds[2] in READABLE:
            for line in ("the script has begun",) if HAS_JOURNAL else SAID:
                daemon.wait_log(line)
        answers(daemon)
        if kinds in EXECUTED_ANEW:
            assert daemon.ctl("reexec").returncode == 0
            for name in ("accessory", "reaper", f"netns@{netns}", "reads"):
                os.kill(rows[name]["pid"], signal.SIGKILL)
                daemon.wait_running(name, other_than=rows[name]["pid"])
            answers(daemon)
            rows = daemon.services()
            assert {row["failures"] for row in json.loads(daemon.ctl("status", "all", "--json").stdout)} <= {0, 1}, rows
        assert daemon.stop() == 0


def answers(daemon: Daemon) -> None:
    result = daemon.ctl("call", "accessory", "List")
    assert result.returncode == 0, result.stderr


IN_ITS_OWN_DEV = """
for node in null zero full random urandom tty ptmx; do
  : > "$0/$node"; mount --bind "/dev/$node" "$0/$node"
done
mount --rbind "$0" /dev
exec "$@" 2<&-
"""


def test_with_stderr_closed_workers_log_to_syslog_as_spawnd_does(folder: Path) -> None:
    """Output of services counts as well: the log worker passes it on."""
    dev = folder / "dev"
    dev.mkdir()
    with ExitStack() as stack:
        syslog = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        syslog.bind(str(dev / "log"))
        (dev / "log").chmod(0o666)
        syslog.settimeout(60)
        accessory = SHIPPED.read_text().replace("@cm4all-spawn", f"@stdio-{folder.name}")
        daemon = Daemon(folder, accessory + SERVICES.partition("reads =")[0].replace("@", str(folder)))
        (folder / "passed").touch()
        daemon.prefix = ["unshare", "--mount", "/bin/sh", "-c", IN_ITS_OWN_DEV, str(dev)]
        stack.enter_context(daemon)
        said = b""
        while (b"says: said" not in said and not HAS_JOURNAL) or b"this host has no such user" not in said:
            said += syslog.recv(8192) + b"\n"
        assert b"accessory: running" in said or daemon.state("accessory") == "running"
