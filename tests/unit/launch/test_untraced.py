"""An acceptor that is started by descriptor as an ordinary user cannot be traced or robbed of its descriptors."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.launch.acceptor import Options, encode
from supervisor.launch.operations import Kind, operation, plan
from supervisor.launch.session_table import make_table
from supervisor.linux.descriptors import pidfd_getfd
from supervisor.linux.libc import check, function
from supervisor.process.files import rights_of
from supervisor.process.fork import fork
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import descriptors, make_plan
from tests.unit.launch.accepting import read_to_end, sealed, session_plan, tcp
from tests.unit.launch.inserted import operations_of
from tests.unit.process.forked import read_all
from tests.unit.process.launched import service
from tests.unit.program import PROGRAM

NOBODY = 65534
PTRACE_ATTACH = 16  # <sys/ptrace.h>
OK = '#include <unistd.h>\nint main(void) { return write(1, "ok\\n", 3) != 3; }\n'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
_ptrace = function("ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def as_nobody(call: Callable[[], object]) -> int:
    """Return the errno with which a call of the user nobody fails, or 0."""

    def become() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            call()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)

    return os.waitstatus_to_exitcode(os.waitpid(fork(become), 0)[1])


def start_acceptor(chroot: Path, listener: socket.socket, table: int) -> int:
    """Start an acceptor by descriptor, as nobody in a chroot; return its pid."""
    ours, theirs = socket.socketpair()
    ours.send(b"\n")
    with ExitStack() as stack:

        def own(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        options = Options(plan=5, table=6, processes=7, listeners=(4,))
        files = [
            *(listener.fileno(), own(sealed(session_plan(("/ok",)))), table, own(os.open("/proc", os.O_PATH))),
            *(own(sealed(encode(options))), PROGRAM.acceptor()),
        ]
        confined = service(chroot=str(chroot))
        launch = Launch(
            argv=("unused",), env={}, service=confined, stdio=("/dev/null",) * 3, error_fd=theirs.fileno(),
            nofile_soft=1024, is_root=True, rights=rights_of(confined),
            fds=(("reserve", "/dev/null"), *((f"n{fd}", fd) for fd in files)),
        )  # fmt: skip
        arrival = PROGRAM.arrival(descriptors(launch), launch.error_fd)
        *before, _ = operations_of(make_plan(launch, arrival))
        execute = operation(Kind.EXECUTE_DESCRIPTOR, "exec", "acceptor", [9], ["acceptor", "8"])
        pid = PROGRAM.start(plan([*before, execute]), arrival, launch.error_fd, ours.fileno())
    theirs.close()
    assert read_all(ours.detach()) == b""
    return pid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with nothing but a static program."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "ok.c").write_text(OK)
    (tmp_path / "root").mkdir()
    subprocess.run(["cc", "-static", "-o", tmp_path / "root" / "ok", tmp_path / "ok.c"], check=True)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o111)
    return tmp_path / "root"


@pytest.fixture
def acceptor(root: Path) -> Iterator[tuple[int, socket.socket]]:
    """The pid of an acceptor, and its listening socket."""
    table = make_table()
    with tcp() as listener:
        pid = start_acceptor(root, listener, table)
        try:
            yield pid, listener
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(table)


def test_sessions_run_in_its_root(acceptor: tuple[int, socket.socket]) -> None:
    with socket.create_connection(acceptor[1].getsockname(), 30) as client:
        assert read_to_end(client) == b"ok\n"


def test_it_keeps_no_descriptor_of_its_program(acceptor: tuple[int, socket.socket]) -> None:
    links = [os.readlink(f"/proc/{acceptor[0]}/fd/{fd}") for fd in os.listdir(f"/proc/{acceptor[0]}/fd")]
    assert not [link for link in links if link.endswith("launch/acceptor")]


def test_its_user_cannot_reach_into_it(acceptor: tuple[int, socket.socket]) -> None:
    pid = acceptor[0]
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
    pidfd = os.pidfd_open(pid)
    try:
        assert as_nobody(lambda: check(_ptrace(PTRACE_ATTACH, pid, None, None))) == errno.EPERM
        assert as_nobody(lambda: os.listdir(f"/proc/{pid}/fd")) == errno.EACCES
        assert as_nobody(lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR)) == errno.EACCES
        assert as_nobody(lambda: pidfd_getfd(pidfd, 4)) == errno.EPERM
    finally:
        os.close(pidfd)


def test_its_program_can_be_executed_only() -> None:
    assert os.fstat(PROGRAM.acceptor()).st_mode & 0o777 == 0o711
