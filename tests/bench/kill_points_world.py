"""A spawnd with services of many kinds, and the look for faults after an interruption."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import prctl

from supervisor.places import cgroup2_mounts
from tests.daemon import Daemon, call, children, command_name, descendants, start_time, wait_until
from tests.unit.process.launched import PYTHON

SETTLED = {"running", "stopped", "done", "failed"}
PATIENCE = 40.0  # seconds until all services are settled
LEAVING = 20.0  # seconds for processes that end by themselves, such as a fork server without work
REAP = 0.005  # seconds
SPARE = 2  # descriptors of a kind that may come and go
SIGNS = ("Traceback", "unexpected error", "cannot be taken over", "not got back", "is lost")
# made anew if the log worker and spawnd die together
EXPECTED = ("fd /memfd:log-again (deleted)", "fd /memfd:log-N (deleted)")

Rows = dict[str, dict[str, Any]]

# Lock a file, or say that another process has it; then live.
LOCK = (
    'open F, ">>", $ARGV[0] or die; flock F, 6 or do { open T, ">>", "$ARGV[0].twice"; syswrite T, "$$\\n"; exit };'
    'syswrite F, ".";'
)
PLAIN = LOCK + "sleep 100000;"
HELPER = LOCK + "if (!fork) { close F; setpgrp; sleep 100000 } sleep 100000;"
READY = LOCK + 'open R, ">&=", $ARGV[1]; syswrite R, "\\n"; close R; sleep 100000;'
DAEMON = "if (fork) { exit 0 } use POSIX; POSIX::setsid(); " + PLAIN
NOTIFY = """
import fcntl, os, socket, sys, time
file = open(sys.argv[1], "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(sys.argv[1] + ".twice", "a").write("x\\n")
    sys.exit()
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(os.environ["NOTIFY_SOCKET"])
if int(os.environ.get("LISTEN_FDS", 0)) < 2:
    socket.send_fds(sock, [b"FDSTORE=1\\nFDNAME=kept"], [os.memfd_create("kept")])
sock.send(b"READY=1\\nSTATUS=here")
while True: time.sleep(100000)
"""
DEFINITIONS = """
local function perl(text, name, ...)
  return { exec = "/usr/bin/perl", arg = { "-e", text, "@/" .. name, ... }, user = "root", healthy_after = "1ms",
    start_limit = false, backoff = { first = "10ms", max = "10ms" }, stdout = log(), stderr = log() }
end
plain = perl([[PLAIN]], "plain")
plain.fd = { tcp("127.0.0.1", 0), stream("@/plain.sock") }
plain.env = { VERSION = "1" }
helper = perl([[HELPER]], "helper")
fd = perl([[READY]], "fd", "9")
fd.ready = "fd"
fd.ready_fd = 9
daemon = perl([[DAEMON]], "daemon")
daemon.forking = true
checked = perl([[PLAIN]], "checked")
checked.check = { "/bin/true" }
notify = { exec = "[[PYTHON]]", arg = { "-IS", "-c", [[NOTIFY]], "@/notify" }, user = "root", healthy_after = "1ms",
  ready = "notify", fdstore_max = 4, start_limit = false, backoff = { first = "10ms", max = "10ms" },
  fd = { udp("127.0.0.1", 0) } }
acc = { worker = "accessory", fd = { seqpacket("@/acc.sock") } }
"""
MODULE = """
module("mod", package.seeall)
function start() io.open("@/mod", "w"):close() end
function stop() os.remove("@/mod") end
"""
PROGRAMS = {"HELPER": HELPER, "READY": READY, "DAEMON": DAEMON, "PLAIN": PLAIN, "NOTIFY": NOTIFY}


def definitions(folder: Path, cgroup: Path | None) -> str:
    text = DEFINITIONS.replace("[[PYTHON]]", PYTHON)
    for name, program in PROGRAMS.items():
        text = text.replace(f"[[{name}]]", f"[==[{program}]==]")
    settings = f'_SUPERVISOR = {{ cgroup = "{cgroup}" }}\n' if cgroup is not None else ""
    return settings + text.replace("@/", f"{folder}/")


class World:
    """spawnd and all that it has started: orphans are ours, as this process is a subreaper."""

    def __init__(self, daemon: Daemon, cgroup: Path | None) -> None:
        self.daemon = daemon
        self.faults: list[str] = []
        self.own = set(children(os.getpid()))  # processes that are none of spawnd's
        self._cgroup = cgroup
        self._log_at = 0
        self._files: dict[str, int] = {}

    def ctl(self, *arguments: str) -> int:
        return self.daemon.ctl(*arguments).returncode

    def settle(self) -> Rows:
        """Wait until no service changes its state any more, and return all. Raises TimeoutError."""

        def settled() -> Rows | None:
            rows = self.daemon.services()
            return rows if all(row["state"] in SETTLED for row in rows.values()) else None

        try:
            rows = wait_until(settled, "settled services", PATIENCE)
        except TimeoutError:
            states = [(name, row["state"]) for name, row in self.daemon.services().items()]
            self.faults.append(f"not settled: {[each for each in states if each[1] not in SETTLED]}")
            raise
        assert rows is not None
        return rows

    def orphans(self) -> list[int]:
        return [pid for pid in children(os.getpid()) if pid not in self.own and pid != self.daemon.pid]

    def new_log(self) -> str:
        text = self.daemon.log()
        new, self._log_at = text[self._log_at :], len(text)
        return new

    def check(self, what: str) -> None:
        """Look for processes that run twice or belong to nothing, and for errors in the log."""
        for path in self.daemon.folder.glob("*.twice"):
            self.faults.append(f"{what}: {path.name}: {path.read_text().split()}")
            path.unlink()
        self.faults += [f"{what}: unknown process {one}" for one in self._unknown()]
        new = self.new_log()
        for sign in SIGNS:
            if sign in new:
                at = new.index(sign)
                self.faults.append(f"{what}: log: {new[max(0, at - 300) : at + 1500]}")

    def _unknown(self) -> list[str]:
        """Return the processes that belong to nothing, after a while for those that end by themselves."""
        seen: list[str] = []

        def none() -> bool:
            rows = call(self.daemon.socket, "List", names=[])["parameters"]["services"]
            known = {row["pid"] for row in rows if row["pid"]}
            known |= {pid for one in known for pid in descendants(one)}
            orphans, forked = self.orphans(), children(self.daemon.pid)
            strangers = [pid for pid in (*orphans, *forked) if pid not in known and start_time(pid) is not None]
            # a fork server of this spawnd is no service, and stays for a while
            servers = {pid for pid in forked if command_name(pid).startswith("spawnd: f")}
            seen[:] = [f"{pid} {command_name(pid)}" for pid in strangers if pid not in servers]
            return not seen

        with suppress(TimeoutError):
            wait_until(none, "known processes", LEAVING)
        return seen

    def remember_files(self) -> None:
        self._files = self._count_files()

    def compare_files(self, what: str) -> None:
        """Look for more files, descriptors and cgroups than at first."""
        for kind, count in self._count_files().items():
            spare = SPARE if kind.startswith("fd") else 0
            if kind not in EXPECTED and count > self._files.get(kind, 0) + spare:
                self.faults.append(f"{what}: {count} {kind}, was {self._files.get(kind, 0)}")
                self._files[kind] = count

    def _count_files(self) -> dict[str, int]:
        found: dict[str, int] = {}

        def add(kind: str) -> None:
            found[kind] = found.get(kind, 0) + 1

        for top, mark in ((self.daemon.runtime, "run"), (self._cgroup, "cgroup")):
            for folder, names, files in os.walk(top) if top is not None else ():
                for name in (*names, *files) if mark == "run" else names:
                    path = os.path.relpath(f"{folder}/{name}", top)
                    add(f"{mark} " + re.sub(r"extra\d|\.[\w+=-]{16}|\d+", "N", path))
        for number in os.listdir(f"/proc/{self.daemon.pid}/fd"):
            with suppress(OSError):
                add("fd " + re.sub(r"extra\d|\d+|@.*", "N", os.readlink(f"/proc/{self.daemon.pid}/fd/{number}")))
        return found


@contextmanager
def reaping(world: World) -> Iterator[None]:
    """Reap orphans as process 1 does."""
    ends = Event()

    def reap() -> None:
        while not ends.wait(REAP):
            for pid in world.orphans():
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    thread = Thread(target=reap)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@contextmanager
def a_cgroup() -> Iterator[Path]:
    point = next(point for point, root in cgroup2_mounts().items() if root == "/")
    path = Path(tempfile.mkdtemp(dir=point, prefix="spawnd-points-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        (path / "cgroup.kill").write_text("1")
        wait_until(lambda: "populated 0" in (path / "cgroup.events").read_text(), "an empty cgroup")
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)


@contextmanager
def world_of(with_cgroup: bool) -> Iterator[World]:
    """Yield a world in which a spawnd was lost once, so that later losses change nothing for good."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    prctl.set_child_subreaper(1)
    with ExitStack() as stack:
        cgroup = stack.enter_context(a_cgroup()) if with_cgroup else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spawnd-points-")))
        folder.chmod(0o755)
        (folder / "mod.lua").write_text(MODULE.replace("@/", f"{folder}/"))
        text = definitions(folder, cgroup)
        daemon = stack.enter_context(Daemon(folder, text, "--config", str(folder / "mod.lua")))
        world = World(daemon, cgroup)
        stack.enter_context(reaping(world))
        world.settle()
        daemon.lose()
        daemon.again()
        world.settle()
        world.ctl("restart", "mod")
        world.check("at first")
        world.remember_files()
        yield world
