"""A spawnd with services of many kinds, and the look for faults after an interruption."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import prctl

from supervisor.places import cgroup2_mounts
from tests.bench.kill_points_services import MODULE, definitions
from tests.daemon import Daemon, call, children, command_name, descendants, process_state, start_time, wait_until

SETTLED = {"running", "stopped", "done", "failed", "asleep"}
METHODS = {"start", "stop", "restart", "sleep", "reopen"}  # called without a process of spawnctl, which takes long
ENDS = {"sleeper", "idle"}  # services that sleep again by themselves
PATIENCE = 40.0  # seconds until all services are settled
CLIENT_PATIENCE = 30.0  # seconds until a client is served
HEARING = 10.0  # seconds until a word of a service is known
LEAVING = 20.0  # seconds for processes that end by themselves, such as a fork server without work
REAP = 0.005  # seconds
SPARE = 2  # descriptors of a kind that may come and go
SIGNS = ("Traceback", "unexpected error", "cannot be taken over", "not got back", "is lost")
# of a service whose process ends while there is no spawnd, which may lose what nobody else has
LOST = r".* {}: stored descriptor .* is lost\n"
# without an acceptor nobody but spawnd has the table: the next one makes it anew
TABLE_LOST = re.compile(r".*stored descriptor ':sessions' .* is lost\n")
# of the interpreter, where calls fail before it has read a line of ours
NOT_BEGUN = re.compile(r"(Exception ignored error evaluating path|Fatal Python error):.*?(?=\n\d{4}-|\Z)", re.S)
# made anew if the log worker and spawnd die together
EXPECTED = ("fd /memfd:log-again (deleted)", "fd /memfd:log-N (deleted)")

Rows = dict[str, dict[str, Any]]
Address = str | tuple[str, int]


class Client:
    """A client that was told the pid of the process that serves it. Raises OSError if it was not."""

    def __init__(self, address: Address, source: str = "") -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(CLIENT_PATIENCE)
        try:
            if source:
                self._socket.bind((source, 0))
            self._socket.connect(address)
            told = self._socket.recv(100)
            if not told:
                raise ConnectionResetError(f"{address}: closed")
            self.pid = int(told)
        except BaseException:
            self.close()
            raise

    def is_served(self) -> bool:
        with suppress(OSError):
            self._socket.sendall(b"x")
            return self._socket.recv(10) == b"x"
        return False

    def close(self) -> None:
        self._socket.close()


def is_let_in(address: Address, source: str = "") -> bool:
    """Whether a client is served at all."""
    try:
        client = Client(address, source)
    except ConnectionError:
        return False
    client.close()
    return True


def is_settled(name: str, state: str) -> bool:
    return state in SETTLED and not (name in ENDS and state == "running")


class World:
    """spawnd and all that it has started: orphans are ours, as this process is a subreaper."""

    def __init__(self, daemon: Daemon, cgroup: Path | None) -> None:
        self.daemon = daemon
        self.faults: list[str] = []
        self.own = set(children(os.getpid()))  # processes that are none of spawnd's
        self._cgroup = cgroup
        self._log_at = 0
        self._files: dict[str, int] = {}
        self._words = 0
        self.session: Client | None = None  # a client of `sessions` that stays

    def ctl(self, verb: str, *arguments: str) -> int:
        """Give an order as spawnctl does, and return its exit status. Raises OSError, ValueError if spawnd is lost."""
        if verb not in METHODS:
            return self.daemon.ctl(verb, *arguments).returncode
        names = [name for name in arguments if not name.startswith("--")]
        options = {each[2:].replace("-", "_"): True for each in arguments if each.startswith("--")}
        reply = call(self.daemon.socket, verb.capitalize(), names=names, **options)
        return 0 if "error" not in reply and all(each["ok"] for each in reply["parameters"]["results"]) else 1

    def settle(self) -> Rows:
        """Wait until no service changes its state any more, and return all. Raises TimeoutError."""

        def settled() -> Rows | None:
            rows = self.daemon.services()
            return rows if all(is_settled(name, row["state"]) for name, row in rows.items()) else None

        try:
            rows = wait_until(settled, "settled services", PATIENCE)
        except TimeoutError:
            states = [(name, row["state"]) for name, row in self.daemon.services().items()]
            self.faults.append(f"not settled: {[each for each in states if not is_settled(*each)]}")
            raise
        assert rows is not None
        return rows

    def starts(self, name: str) -> int | None:
        """Return how often the program of a service was started; None where it does not count that."""
        with suppress(FileNotFoundError):
            return (self.daemon.folder / name).stat().st_size
        return None

    def orphans(self) -> list[int]:
        return [pid for pid in children(os.getpid()) if pid not in self.own and pid != self.daemon.pid]

    def new_log(self) -> str:
        text = self.daemon.log()
        new, self._log_at = text[self._log_at :], len(text)
        return new

    def check(self, what: str, target: str = "") -> None:
        """Look for processes that run twice or belong to nothing, and for errors in the log.

        The process of the service `target` may have ended together with spawnd.
        """
        for path in self.daemon.folder.glob("*.twice"):
            self.faults.append(f"{what}: {path.name}: {path.read_text().split()}")
            path.unlink()
        self.faults += [f"{what}: unknown process {one}" for one in self._unknown()]
        self.faults += [f"{what}: {one}" for one in self._stopped()]
        new = NOT_BEGUN.sub("", self.new_log())
        new = re.sub(LOST.format(target), "", new) if target else new
        new = TABLE_LOST.sub("", new)
        for sign in SIGNS:
            if sign in new:
                at = new.index(sign)
                self.faults.append(f"{what}: log: {new[max(0, at - 300) : at + 1500]}")

    def pids(self) -> set[int]:
        """Return the main processes of all services, and of those that are built in."""
        rows = call(self.daemon.socket, "List", names=[])["parameters"]["services"]
        return {row["pid"] for row in rows if row["pid"]}

    def _unknown(self) -> list[str]:
        """Return the processes that belong to nothing, after a while for those that end by themselves."""
        seen: list[str] = []

        def none() -> bool:
            known = self.pids()
            known |= {self.session.pid} if self.session is not None else set()
            known |= {pid for one in known for pid in descendants(one)}
            orphans, forked = self.orphans(), children(self.daemon.pid)
            strangers = [pid for pid in (*orphans, *forked) if pid not in known and start_time(pid) is not None]
            # a fork server of this spawnd is no service, and stays for a while
            servers = {pid for pid in forked if command_name(pid).startswith("spawnd: f")}
            seen[:] = [f"{pid} {command_name(pid)}" for pid in strangers if pid not in servers]
            return not seen

        with suppress(TimeoutError):
            wait_until(none, "known processes", LEAVING)
        for one in seen:  # it is told once
            with suppress(ProcessLookupError):
                os.kill(int(one.split()[0]), signal.SIGKILL)
        return seen

    def _stopped(self) -> list[str]:
        """Return the processes and cgroups that stay stopped."""
        stopped: list[str] = []

        def none() -> bool:
            pids = [row["pid"] for row in self.daemon.services().values() if row["pid"]]
            pids += [pid for one in pids for pid in descendants(one)]
            stopped[:] = [f"{command_name(pid)}[{pid}] is stopped" for pid in pids if process_state(pid) == "T"]
            for path in self._cgroup.rglob("cgroup.freeze") if self._cgroup is not None else ():
                with suppress(OSError):
                    stopped.extend([f"{path} is frozen"] if path.read_text() == "1\n" else [])
            return not stopped

        with suppress(TimeoutError):
            wait_until(none, "that all go on", HEARING)
        return stopped

    # what services say

    def say(self) -> str:
        """Have `notify` say a word, and return it; '' where it does not run."""
        row = self.daemon.services()["notify"]
        return self.say_as(row["pid"]) if row["state"] == "running" else ""

    def say_as(self, pid: int) -> str:
        """Have `notify`, whose pid that is, say a word in its status and on its log; return it, '' if it has ended."""
        self._words += 1
        word = f"word-{self._words}."
        (self.daemon.folder / "notify.word").write_text(word)
        try:
            os.kill(pid, signal.SIGUSR1)
        except ProcessLookupError:
            return ""
        return word

    def hear(self, what: str, word: str) -> None:
        """Look for a word that must be in the log."""
        try:
            wait_until(lambda: f"says {word}" in self.daemon.log(), "a line", HEARING)
        except TimeoutError:
            self.faults.append(f"{what}: {word!r} of notify is not in the log")

    def check_words(self, what: str) -> None:
        """Look whether messages and lines come through."""
        if not (word := self.say()):
            return

        def is_known() -> bool:
            reply = call(self.daemon.socket, "Status", names=["notify"])
            return bool(reply["parameters"]["services"][0]["status_text"] == word)

        try:
            wait_until(is_known, "its status", HEARING)
        except TimeoutError:
            self.faults.append(f"{what}: the status {word!r} of notify is not known")
        self.hear(what, word)

    # clients of services on demand

    def port(self, name: str) -> tuple[str, int]:
        """Return the address of the first TCP socket of a service."""
        rows = call(self.daemon.socket, "Fds", name=name)["parameters"]["descriptors"]
        found = next(found for row in rows if (found := re.search(r"127\.0\.0\.1:(\d+)", row["what"])) is not None)
        return "127.0.0.1", int(found[1])

    def keep_session(self) -> None:
        """Have a client whose session lasts, if there is none."""
        if self.session is None:
            self.session = Client(str(self.daemon.folder / "sessions.sock"))

    def check_session(self, what: str, expected: bool | None) -> None:
        """Look whether the session lasts, as expected; None if either is right."""
        if self.session is None:
            return
        is_served = self.session.is_served()
        if expected is not None and is_served != expected:
            self.faults.append(f"{what}: the session {'has ended' if expected else 'lives on'}")
        if not is_served:
            self.session.close()
            self.session = None

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
def world_of(with_cgroup: bool, on_demand: bool) -> Iterator[World]:
    """Yield a world in which a spawnd was lost once, so that later losses change nothing for good."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    prctl.set_child_subreaper(1)
    with ExitStack() as stack:
        cgroup = stack.enter_context(a_cgroup()) if with_cgroup else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spawnd-points-")))
        folder.chmod(0o755)
        (folder / "mod.lua").write_text(MODULE.replace("@/", f"{folder}/"))
        text = definitions(folder, cgroup, on_demand)
        daemon = stack.enter_context(Daemon(folder, text, "--config", str(folder / "mod.lua")))
        world = World(daemon, cgroup)
        stack.enter_context(reaping(world))
        world.settle()
        if on_demand:
            for name in ("sleeper", "idle", "sessions"):
                is_let_in(str(folder / f"{name}.sock"))
            is_let_in(world.port("trap"))
            world.keep_session()
        daemon.lose()
        daemon.again()
        world.settle()
        world.ctl("restart", "mod")
        world.check("at first")
        world.remember_files()
        yield world
