"""Starts of `launch`: how descriptors come to it, and what is left in the process that has started it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.launch import ACCEPTOR, PATH
from supervisor.launch import program as program_module
from supervisor.launch.program import OWN, Program
from supervisor.linux.descriptors import close_range
from supervisor.linux.namespaces import CLONE_NEWNS, MS_NOEXEC, MS_REC, MS_SLAVE, mount, unshare
from supervisor.process.failure import read_failure
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import descriptors, make_plan
from tests import fuse
from tests.unit.process.forked import in_child, open_numbers, read_all
from tests.unit.process.launched import PYTHON
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_until

LOOK = """
import json, os
found = {}
for name in os.listdir("/proc/self/fd"):
    try:
        found[name] = os.fstat(int(name)).st_ino
    except OSError:
        pass
print(json.dumps(found))
"""
KINDS = ("socket", "pipe", "file", "memfd", "null")
NULL = os.stat("/dev/null").st_ino


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Programs and blocks are for the life of a process, which is none of the tests'."""
    before = open_numbers()
    yield
    for fd in open_numbers() - before:
        os.close(fd)


class Started:
    """A process of `launch` that has not been let go yet."""

    def __init__(self, program: Program, argv: tuple[str, ...], *sources: int | str, **changes: Any) -> None:
        ours, theirs = socket.socketpair()
        stdin, stdout, stderr, *others = sources or ("/dev/null",) * 3
        launch = Launch(
            argv=argv,
            env={},
            service=changes.pop("service", Service("test")),
            stdio=(stdin, stdout, stderr),
            fds=tuple((f"n{number}", source) for number, source in enumerate(others)),
            error_fd=theirs.fileno(),
            nofile_soft=1024,
            is_root=os.geteuid() == 0,
            **changes,
        )
        with theirs:
            self.arrival = program.arrival(descriptors(launch), theirs.fileno())
            plan = make_plan(launch, self.arrival)
            self.pid = program.start(plan, self.arrival, theirs.fileno(), ours.fileno())
        self._ours = ours

    def end(self) -> tuple[int, str]:
        """Let it go; exit status, or signal below 0, and failure."""
        os.write(self._ours.fileno(), b"\n")
        failure = read_failure(read_all(self._ours.detach()))
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), "" if failure is None else str(failure)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._ours.close()


def reserved() -> Program:
    program = Program()
    program.reserve()
    return program


def make(kind: str, folder: str) -> int:
    if kind == "socket":
        return socket.socket(socket.AF_UNIX).detach()
    if kind == "pipe":
        read_end, write_end = os.pipe()
        os.close(write_end)
        return read_end
    if kind == "memfd":
        return os.memfd_create("test")
    return os.open(f"{folder}/file" if kind == "file" else os.devnull, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)


@settings(max_examples=30, deadline=None, database=None)
@given(
    st.lists(st.sampled_from([*KINDS, "/dev/null"]), min_size=0, max_size=60),
    st.booleans(),
    st.integers(3, 300),
    st.integers(0, 1000),
)
def test_each_number_has_what_it_is_to_have(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], reserves: bool, above: int, seed: int
) -> None:
    """Whatever comes in the block, in messages and in a copy, from wherever."""
    folder = str(tmp_path_factory.mktemp("table"))

    def look() -> tuple[dict[str, int], dict[int, int], int, bool]:
        random = Random(seed)  # an order
        program = reserved() if reserves else Program()
        out = os.memfd_create("out")
        sources: list[int | str] = []
        for kind in kinds:
            if kind in KINDS:
                fd = make(kind, folder)
                sources.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, random.choice([3, above])))
                os.close(fd)
            else:
                sources.append(kind)
        sources += random.choices(sources, k=3) if sources else []
        random.shuffle(sources)
        before = states()
        started = Started(program, (PYTHON, "-ISBc", LOOK), "/dev/null", out, out, *sources)
        assert states() == before | {started._ours.fileno(): (os.fstat(started._ours.fileno()).st_ino, 1)}
        assert started.end() == (0, "")
        wanted = {3 + n: NULL if isinstance(s, str) else os.fstat(s).st_ino for n, s in enumerate(sources)}
        return (
            json.loads(os.pread(out, 1 << 20, 0)),
            {0: NULL, 1: os.fstat(out).st_ino, 2: os.fstat(out).st_ino, **wanted},
            started.arrival.highest,
            sum(kind == "socket" for kind in kinds) <= len(program._block) - OWN,
        )

    found, wanted, highest, fits = in_child(look)
    assert {int(number): inode for number, inode in found.items()} == wanted
    assert (highest < 0) == (reserves and fits) or highest < 0


def states() -> dict[int, tuple[int, int]]:
    """Inode of each descriptor of this process, and whether an exec closes it."""
    return {fd: (os.fstat(fd).st_ino, fcntl.fcntl(fd, fcntl.F_GETFD)) for fd in open_numbers()}


def test_thousands_of_descriptors_of_spawnd_are_not_in_its_table() -> None:
    def look() -> tuple[int, int]:
        program = reserved()
        for number in range(400):
            fcntl.fcntl(0, fcntl.F_DUPFD, 100 + number)  # without close-on-exec
        started = Started(program, ("/bin/true",))
        found = sorted(map(int, os.listdir(f"/proc/{started.pid}/fd")))
        started.kill()
        return found[-1], max(program._block)

    highest, last = in_child(look)
    assert highest <= last | 63


def test_nothing_of_spawnd_is_open_while_it_waits() -> None:
    program = reserved()
    with open(os.devnull) as file:
        started = Started(program, ("/bin/true",), file.fileno(), file.fileno(), file.fileno())
        wait_until(lambda: len(os.listdir(f"/proc/{started.pid}/fd")) == 4)
        links = {os.readlink(f"/proc/{started.pid}/fd/{number}") for number in (0, 1, 2)}
        assert links == {os.devnull}
        started.kill()


def test_it_waits_for_spawnd_and_shows_what_it_is(tmp_path: Path) -> None:
    started = Started(Program(), ("/usr/bin/touch", str(tmp_path / "ran")), service=Service("t", uid=0, gid=0))
    folder = Path(f"/proc/{started.pid}")
    wait_until(lambda: (folder / "comm").read_text() == "spawnd: launch\n")
    wait_until(lambda: (folder / "cmdline").read_bytes().startswith(b"launch\0"))
    assert not (tmp_path / "ran").exists()
    assert started.end() == (0, "")
    assert (tmp_path / "ran").exists()


@needs_root
def test_nobody_of_its_user_can_look_into_it() -> None:
    started = Started(Program(), ("/bin/sleep", "100"), service=Service("t", uid=12345, gid=12345))
    status = Path(f"/proc/{started.pid}/status")
    wait_until(lambda: "Uid:\t12345\t12345\t12345\t12345" in status.read_text())
    assert os.stat(f"/proc/{started.pid}/environ").st_uid == 0
    started.kill()


def test_without_a_spawnd_the_program_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "ran"
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        Started(Program(), ("/usr/bin/touch", str(path)), "/dev/null", write_end, write_end)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(write_end)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert read_all(read_end) == b""  # it has ended
    assert not path.exists()


def test_a_pipe_that_arrives_in_a_message_is_not_kept_by_who_has_sent_it() -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    started = Started(reserved(), ("/bin/true",), "/dev/null", write_end, "/dev/null")
    os.close(write_end)
    assert started.end() == (0, "")
    assert read_all(read_end) == b""


def test_an_error_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_program = tmp_path / "launch"
    no_program.write_text("")
    no_program.chmod(0o755)
    monkeypatch.setattr(program_module, "PATH", str(no_program))

    def fail() -> tuple[bool, str]:
        program = reserved()
        before = states()
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="is not executed") as caught:
            Started(program, ("/bin/true",), sock.fileno(), "/dev/null", "/dev/null")
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        del caught
        return states() == before, ""

    assert in_child(fail)[0]


def test_a_program_that_is_installed_later_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may expect a plan or options of another version."""
    path = tmp_path / "acceptor"
    path.write_bytes(Path(ACCEPTOR).read_bytes())
    path.chmod(0o755)
    monkeypatch.setattr(program_module, "ACCEPTOR", str(path))
    found = Program().acceptor()
    before = path.stat().st_ino
    (tmp_path / "new").write_text("")
    (tmp_path / "new").rename(path)
    assert os.fstat(found).st_ino == before != path.stat().st_ino


@needs_root
def test_a_noexec_mount_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(program_module, "PATH", str(tmp_path / "launch"))

    def fail() -> tuple[int | None, str | None]:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_SLAVE | MS_REC)
        mount("test", str(tmp_path), "tmpfs", MS_NOEXEC)
        (tmp_path / "launch").write_text("")
        before = open_numbers()
        with pytest.raises(OSError, match="noexec") as caught:
            Program()
        assert open_numbers() == before
        return caught.value.errno, caught.value.strerror

    assert in_child(fail) == (errno.ENOEXEC, "its file system is mounted with noexec")


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
@pytest.mark.parametrize("is_in_table", [False, True])
def test_no_file_keeps_spawnd_waiting(is_in_table: bool) -> None:
    """A close asks the server of the file, which does not answer."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with fuse.unanswering(fuse.FLUSH) as path:
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write_end, str(look(path, is_in_table)).encode())
            finally:
                os._exit(0)  # waits for the server
        seconds = os.read(read_end, 100) if select.select([read_end], [], [], 10)[0] else b""
    os.waitpid(pid, 0)
    os.close(read_end)
    os.close(write_end)
    assert seconds
    assert float(seconds) < 0.5


def look(path: str, is_in_table: bool) -> float:
    """How long a start, and a look at the process, takes with the file open."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    program = reserved()
    sources = (fd, fd, fd) if is_in_table else ("/dev/null",) * 3
    begun = time.monotonic()
    started = Started(program, ("/bin/sleep", "100"), *sources)
    assert Path(f"/proc/{started.pid}/stat").read_text()
    seconds = time.monotonic() - begun
    os.kill(started.pid, signal.SIGKILL)
    return seconds


def test_it_is_installed_as_a_program_of_root() -> None:
    status = os.stat(PATH)
    assert stat.S_IMODE(status.st_mode) & 0o111
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID)


@pytest.mark.parametrize("taken", [0, 30, 60, 61, 64])
def test_the_block_has_each_low_number_that_is_free(taken: int) -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        out = fcntl.fcntl(write_end, fcntl.F_DUPFD, 1000)
        close_range(3, 999)
        for _ in range(taken):
            os.dup(0)
        program = reserved()
        later = os.dup(0)
        os.write(out, json.dumps([later, *program._block]).encode())
        os._exit(0)
    os.close(write_end)
    later, *block = json.loads(read_all(read_end))
    os.waitpid(pid, 0)
    assert len(block) >= 40
    assert later % 64 == 0
    assert later == max(block) + 1
