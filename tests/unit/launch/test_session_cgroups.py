"""Each session has a cgroup of its own, which ends with it; and leftovers of sessions, with cgroups and without."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from supervisor.launch.session_table import make_table
from supervisor.linux.file_status import number_of_pidfd
from supervisor.process.cgroup import Leaf, cgroup_of
from supervisor.process.marks import sessions_among
from supervisor.process.pids import read_processes
from tests.unit.launch.accepting import Acceptor, is_answered, wait_until
from tests.unit.process import cgroups
from tests.unit.process.requirements import needs_root

NOBODY = 65534
STAND_IN = {"cgroup.max.descendants": "1"}  # for a limit, whose controller this host may lack


class Cgroups:
    """The cgroup of a service, and acceptors of the user nobody in it."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        leaf.prepare({})
        leaf.part(NOBODY)
        self.folder = Path(leaf.path, "sessions")
        self.fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def all(self) -> list[int]:
        """Return the numbers of the cgroups of sessions."""
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.is_dir())

    def acceptor(self, *argv: str, **changes: Any) -> Acceptor:
        self.permit(bool(changes.get("limits")))
        return Acceptor(argv or ("/bin/cat",), sessions=self.fd, before=self.become, **changes)

    def permit(self, have_limits: bool) -> None:
        """Permit as many levels below the folder as spawnd does."""
        (self.folder / "cgroup.max.depth").write_text("2" if have_limits else "1")

    def renew(self) -> None:
        """Open the folder anew, as spawnd does for each acceptor: it is read from the beginning."""
        os.lseek(self.fd, 0, os.SEEK_SET)

    def become(self) -> None:
        Path(self.leaf.own, "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


@pytest.fixture
def made() -> Iterator[Cgroups]:
    with cgroups.subtree() as subtree:
        made = Cgroups(subtree.leaf("service"))
        yield made
        os.close(made.fd)


def shell(script: str) -> tuple[str, ...]:
    return "/bin/sh", "-c", script


def living(leaf: Leaf) -> set[int]:
    return {process.pid for process in read_processes(leaf.processes()) if process.state not in "ZX"}


def served(acceptor: Acceptor, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(acceptor.connect())
    assert is_answered(client)
    return client


@needs_root
@pytest.mark.parametrize("limits", [{}, STAND_IN])
def test_each_session_has_a_cgroup_that_ends_with_it(made: Cgroups, limits: dict[str, str]) -> None:
    below = "/session" if limits else ""
    with made.acceptor(limits=limits) as acceptor, ExitStack() as stack:
        first, second = served(acceptor, stack), served(acceptor, stack)
        assert made.all() == [1, 2]
        found = {(cgroup_of(session.pid) or "").partition("/service/")[2] for session in acceptor.sessions()}
        assert found == {f"sessions/1{below}", f"sessions/2{below}"}
        assert (cgroup_of(acceptor.pid) or "").endswith("/service/acceptor")
        for file, text in limits.items():
            assert (made.folder / "2" / file).read_text().strip() == text
        first.close()
        wait_until(lambda: made.all() == [2])
        served(acceptor, stack)
        assert made.all() == [2, 3]
        second.close()
        wait_until(lambda: made.all() == [3])


@needs_root
@pytest.mark.parametrize("limits", [{}, STAND_IN])
def test_all_that_a_session_leaves_is_killed(made: Cgroups, limits: dict[str, str]) -> None:
    script = "setsid sleep 1000 & setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' & exec cat"
    with made.acceptor(*shell(script), limits=limits) as acceptor, ExitStack() as stack:
        other = served(acceptor, stack)
        wait_until(lambda: len(living(made.leaf)) == 5)
        client = served(acceptor, stack)
        wait_until(lambda: len(living(made.leaf)) == 9)
        client.close()
        wait_until(lambda: made.all() == [1])
        assert len(living(made.leaf)) == 5
        assert is_answered(other)


@needs_root
def test_a_session_that_does_not_start_leaves_no_cgroup(made: Cgroups) -> None:
    with made.acceptor("/does/not/exist") as acceptor:
        assert acceptor.ask() == b""
        trouble = acceptor.counters().trouble
        assert trouble is not None
        assert trouble.failures == 1
        wait_until(lambda: made.all() == [])


@needs_root
@pytest.mark.parametrize(
    ("what", "step"), [("limit", "limit the cgroup of a session"), ("folder", "make the cgroup of a session")]
)
def test_a_cgroup_that_cannot_be_made_closes_the_connection(made: Cgroups, what: str, step: str) -> None:
    limits = {"no.such": "1"} if what == "limit" else {}
    if what == "folder":
        os.chown(made.folder, 0, -1)
    with made.acceptor(limits=limits) as acceptor:
        assert acceptor.ask() == b""
        wait_until(lambda: f"cannot {step}" in acceptor.text())
        wait_until(lambda: made.all() == [])
        assert acceptor.counters().sessions == 0


@needs_root
def test_sessions_and_their_cgroups_outlive_their_acceptor(made: Cgroups) -> None:
    with made.acceptor(max=3) as acceptor, ExitStack() as stack:
        clients = [served(acceptor, stack) for _ in range(3)]
        acceptor.stop(signal.SIGKILL)
        clients.pop().close()
        made.renew()
        acceptor.start()
        wait_until(lambda: made.all() == [1, 2])
        wait_until(lambda: acceptor.counters().sessions == 2)
        assert all(map(is_answered, clients))
        clients.append(served(acceptor, stack))
        assert made.all() == [1, 2, 3]
        clients.pop(0).close()
        wait_until(lambda: made.all() == [2, 3])


@needs_root
def test_the_next_acceptor_kills_what_nobody_counts(made: Cgroups) -> None:
    with made.acceptor(*shell("setsid sleep 1000 & exec cat"), limits=STAND_IN) as acceptor, ExitStack() as stack:
        client = served(acceptor, stack)
        wait_until(lambda: len(living(made.leaf)) == 3)
        acceptor.stop(signal.SIGKILL)
        client.close()
        wait_until(lambda: len(living(made.leaf)) == 1)
        (made.folder / "77").mkdir()  # one that was made for a session that never came to be
        made.renew()
        acceptor.start()
        wait_until(lambda: made.all() == [])
        assert living(made.leaf) == {acceptor.pid}


@needs_root
@pytest.mark.parametrize("limits", [{}, STAND_IN])
def test_nothing_is_left_by_acceptors_that_are_killed_at_any_moment(made: Cgroups, limits: dict[str, str]) -> None:
    ended = threading.Event()
    answers: list[bytes] = []

    def ask(acceptor: Acceptor) -> None:
        while not ended.is_set():
            answers.append(acceptor.ask())

    with made.acceptor(*shell("setsid sleep 1000 <&- >&- & echo ok"), limits=limits, max=50) as acceptor:
        threads = [threading.Thread(target=ask, args=(acceptor,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                before = len(answers)
                wait_until(lambda before=before: len(answers) > before + 5)  # type: ignore[misc]
                acceptor.stop(signal.SIGKILL)
                made.renew()
                acceptor.start()
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        wait_until(lambda: made.all() == [] and acceptor.counters().sessions == 0)
        assert living(made.leaf) == {acceptor.pid}
        assert answers.count(b"ok\n") > len(answers) / 2


@needs_root
def test_sessions_that_were_found_again_keep_their_cgroups(made: Cgroups) -> None:
    with made.acceptor(*shell("setsid sleep 1000 & exec cat")) as acceptor, ExitStack() as stack:
        clients = [served(acceptor, stack) for _ in range(2)]
        wait_until(lambda: len(living(made.leaf)) == 5)
        acceptor.stop(signal.SIGKILL)
        leaders = {session.pid for session in acceptor.sessions()}
        found = sessions_among(read_processes(living(made.leaf)))
        assert found.keys() == leaders, "the daemon that each has started is no session"
        assert sorted(number for _started, number in found.values()) == [1, 2]
        table = make_table(found)
        os.dup2(table, acceptor.table, inheritable=False)
        os.close(table)
        made.renew()
        acceptor.start()
        wait_until(lambda: acceptor.counters().sessions == 2)
        clients[0].close()
        wait_until(lambda: made.all() == [2])
        assert is_answered(clients[1])


@needs_root
def test_numbers_that_are_in_use_are_left_out(made: Cgroups) -> None:
    with made.acceptor() as acceptor, ExitStack() as stack:
        served(acceptor, stack)  # it has looked at the folder
        (made.folder / "2").mkdir()
        (made.folder / "3").mkdir()
        served(acceptor, stack)
        last = max(acceptor.sessions(), key=lambda session: session.since)
        assert (cgroup_of(last.pid) or "").endswith("/sessions/4")


@needs_root
def test_a_definition_with_limits_follows_one_without(made: Cgroups) -> None:
    with made.acceptor() as acceptor, ExitStack() as stack:
        old = served(acceptor, stack)
        acceptor.stop()
        made.renew()
        made.permit(True)
        acceptor.start(limits=STAND_IN)
        new = served(acceptor, stack)
        old.close()
        wait_until(lambda: made.all() == [2])
        acceptor.stop()
        made.renew()
        made.permit(False)
        acceptor.start(limits={})
        wait_until(lambda: acceptor.counters().sessions == 1)
        new.close()
        wait_until(lambda: made.all() == [])


@needs_root
def test_another_user_kills_what_sessions_leave(made: Cgroups) -> None:
    with made.acceptor(*shell("setsid sleep 1000 & exec cat")) as acceptor, ExitStack() as stack:
        client = served(acceptor, stack)
        wait_until(lambda: len(living(made.leaf)) == 3)
        acceptor.stop()
        made.leaf.part(1)
        made.renew()
        acceptor.before = partial(_become_other, made)
        acceptor.start()
        wait_until(lambda: acceptor.counters().sessions == 1)
        client.close()
        wait_until(lambda: made.all() == [])
        assert living(made.leaf) == {acceptor.pid}


def _become_other(made: Cgroups) -> None:
    Path(made.leaf.own, "cgroup.procs").write_text("0")
    os.setresgid(1, 1, 1)
    os.setresuid(1, 1, 1)


@needs_root
def test_an_acceptor_stays_until_what_it_has_killed_is_gone(made: Cgroups) -> None:
    with made.acceptor(linger=0.1) as acceptor:
        with acceptor.connect() as client:
            assert is_answered(client)
            inner = made.folder / "1"
            Path(made.folder, "cgroup.max.depth").write_text("9")
            (inner / "held" / "more").mkdir(parents=True)  # by root: the acceptor cannot remove these
        wait_until(lambda: acceptor.counters().sessions == 0)
        assert not acceptor.ends_within(0.5)
        (inner / "held" / "more").rmdir()
        assert acceptor.wait() == 0
        assert made.all() == []


# hostile sessions

WALL = r"""
import ctypes, os, sys
found = {}
def attempt(name, call):
    try:
        call()
        found[name] = 0
    except OSError as error:
        found[name] = error.errno
def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
sessions = sys.argv[1]
own = sessions + open("/proc/self/cgroup").read().rpartition("0::")[2].rpartition("/sessions")[2].strip()
attempt("outer", lambda: write(os.path.dirname(sessions) + "/cgroup.procs", "0"))
attempt("others", lambda: write(sessions + "/1/cgroup.procs", "0"))
attempt("own", lambda: write(own + "/cgroup.procs", "0"))
attempt("list", lambda: os.listdir(sessions))
attempt("make", lambda: os.mkdir(own + "/mine"))
attempt("acceptor", lambda: os.listdir("/proc/%d/fd" % os.getppid()))
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "")
NEWUSER, NEWCGROUP, NEWNS = 0x10000000, 0x02000000, 0x00020000
uid = os.getuid()
attempt("namespace", lambda: check(libc.unshare(NEWUSER | NEWCGROUP | NEWNS)))
if found["namespace"] == 0:
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", "0 %d 1" % uid)
    write("/proc/self/gid_map", "0 %d 1" % uid)
    place = os.environ["PLACE"]
    attempt("mount", lambda: check(libc.mount(b"none", place.encode(), b"cgroup2", 0, None)))
    if found["mount"] == 0:
        attempt("make below", lambda: os.mkdir(place + "/mine"))
        attempt("own limit", lambda: write(place + "/cgroup.max.descendants", "max"))
        if "freeze" in sys.argv:
            attempt("freeze", lambda: write(place + "/cgroup.freeze", "1"))
        found["seen"] = [name for name in os.listdir(place) if os.path.isdir(place + "/" + name)]
print(repr(found), flush=True)
"""


@pytest.fixture
def place() -> Iterator[dict[str, str]]:
    """A mount point for any user, as environment of a session."""
    with tempfile.TemporaryDirectory(prefix="spawnd-test-") as name:
        os.chmod(name, 0o755)
        yield {"PLACE": name}


@needs_root
def test_a_session_that_freezes_itself_ends_in_time(made: Cgroups, place: dict[str, str]) -> None:
    argv = (sys.executable, "-ISc", f"import signal; signal.signal(15, signal.SIG_IGN)\n{WALL}", str(made.folder))
    changes = {"environment": place, "session_timeout": 3, "stop_timeout": 0.1}
    with made.acceptor(*argv, "freeze", **changes) as acceptor:
        if found := acceptor.ask():
            pytest.skip(f"users may make no namespaces here: {found!r}")
        wait_until(lambda: made.all() == [])
        wait_until(lambda: "killed by signal 9" in acceptor.text())
        assert acceptor.counters().sessions == 0


@needs_root
@pytest.mark.parametrize("limits", [{}, STAND_IN])
def test_no_session_leaves_its_cgroup_or_changes_its_limits(
    made: Cgroups, place: dict[str, str], limits: dict[str, str]
) -> None:
    argv = (sys.executable, "-ISc", WALL, str(made.folder))
    with made.acceptor(*argv, limits=limits, environment=place) as acceptor:
        found: dict[str, Any] = eval(acceptor.ask())  # noqa: S307  # of our own program
        forbidden = ("outer", "others", "own", "list", "make", "acceptor")
        assert {found[name] for name in forbidden} == {13}, found
        if found["namespace"] or found["mount"]:
            pytest.skip(f"users may make no namespaces here: {found}")
        assert found["make below"] == 11, "cgroup.max.depth forbids it"
        assert found["own limit"] == 0, "that of the lower cgroup, which counts for nothing"
        assert found["seen"] == [], "the cgroup with the limits is not there"
        wait_until(lambda: made.all() == [])


# without cgroups


@pytest.mark.parametrize("is_inherited", [False, True])
def test_what_a_session_leaves_in_its_group_is_killed(is_inherited: bool, tmp_path: Path) -> None:
    """A process that has left the group lives on."""
    pids = tmp_path / "pids"
    script = f"setsid sleep 1000 & echo $! >> {pids}; sleep 1000 & echo $! >> {pids}; exec cat"
    if is_inherited and not number_of_pidfd(os.pidfd_open(os.getpid())):
        pytest.skip("a pidfd does not reach the group before Linux 6.9")
    with Acceptor(shell(script), environment={"PATH": "/bin:/usr/bin"}) as acceptor:
        with acceptor.connect() as client:
            assert is_answered(client)
            other, member = map(int, pids.read_text().split())
            wait_until(lambda: os.getsid(other) == other)
            if is_inherited:
                acceptor.stop()
                acceptor.start()
                wait_until(lambda: acceptor.counters().sessions == 1)
        try:
            wait_until(lambda: not is_alive(member))
            wait_until(lambda: acceptor.counters().sessions == 0)
            assert is_alive(other)
        finally:
            os.kill(other, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    return any(process.state not in "ZX" for process in read_processes([pid]))

