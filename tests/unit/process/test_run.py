"""One process of a service: its pipes and its signals."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.errors import StepError
from supervisor.process import child
from supervisor.process.failure import ErrorPipe
from supervisor.process.fork import fork
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import descriptors, make_plan
from supervisor.process.pids import read_process
from supervisor.process.run import Role, Run
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.launched import service
from tests.unit.process.requirements import needs_root
from tests.unit.program import PROGRAM
from tests.unit.waiting import child_process, wait_exit, wait_readable, wait_until

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pair of sockets: one that does not block, for the run, and the other one."""
    before = open_numbers()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours.detach(), theirs.detach()
    for fd in open_numbers() - before:
        os.close(fd)


# the pipe on which the set-up reports


def test_a_set_up_that_worked_says_nothing(pipe: Pipe) -> None:
    run = Run(1, Role.MAIN, pipe[0])
    assert not run.read_errors()
    os.close(pipe[1])
    assert run.read_errors()
    assert run.setup_error() is None
    run.close_error_fd()
    run.close_error_fd()
    assert run.error_fd == -1


def test_a_failure_comes_with_its_end(pipe: Pipe) -> None:
    run = Run(1, Role.MAIN, pipe[0])
    report = ErrorPipe(pipe[1])
    report.report(StepError("exec", "/bin/no", errno.ENOENT, "No such file or directory"))
    assert not run.read_errors(), "there may be more"
    report.close()
    assert run.read_errors()
    assert str(run.setup_error()) == "cannot exec '/bin/no': No such file or directory (ENOENT)"


def test_a_failure_that_comes_in_pieces(pipe: Pipe) -> None:
    run = Run(1, Role.MAIN, pipe[0])
    data = b'{"step": "exec", "path": "/x", "errno": 2, "cause": "%s"}' % (b"long " * 2000)
    for at in range(0, len(data), 999):
        os.write(pipe[1], data[at : at + 999])
        assert not run.read_errors()
    os.close(pipe[1])
    assert run.read_errors()
    assert str(run.setup_error()).startswith("cannot exec '/x': long long")


# the same pipe, on which it is let go


@pytest.fixture
def pair() -> Iterator[Pipe]:
    """The run's end, which does not block, and the child's: as the launcher makes them."""
    before = open_numbers()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours.detach(), theirs.detach()
    for fd in open_numbers() - before:
        os.close(fd)


def test_a_child_is_let_go_once(pair: Pipe) -> None:
    run = Run(1, Role.MAIN, pair[0])
    run.release()
    assert os.read(pair[1], 1)
    assert not run.read_errors()


def test_what_failed_before_it_was_let_go_is_told_whole(pair: Pipe) -> None:
    """The kernel resets a pair of which one end was closed with something unread in it."""
    run = Run(1, Role.MAIN, pair[0])
    run.release()
    report = ErrorPipe(pair[1])
    report.report(StepError("change directory", "/no", errno.ENOENT, "No such file or directory"))
    report.close()
    assert run.read_errors()
    assert str(run.setup_error()).startswith("cannot change directory '/no'")
    run.release()


@pytest.mark.parametrize(("is_let_go", "has_run"), [(False, False), (True, True)])
def test_the_end_of_a_report_is_no_exec_if_the_process_was_killed_before(is_let_go: bool, has_run: bool) -> None:
    """Either process is dead before its report is read: only its name tells."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        launch = Launch(theirs.fileno(), ("/bin/true",), {}, service(), ("/dev/null",) * 3, 1024, os.geteuid() == 0)
        arrival = PROGRAM.arrival(descriptors(launch), theirs.fileno())
        pid = PROGRAM.start(make_plan(launch, arrival), arrival, theirs.fileno(), ours.fileno())
        theirs.close()
        run = Run(pid, Role.MAIN, ours.fileno())
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "spawnd: launch\n")
        if is_let_go:
            run.release()
        else:
            os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert run.read_errors()
        assert not run.executes()
        assert run.has_run is None
        assert run.executes() is has_run
        os.waitpid(pid, 0)


def test_a_process_that_lives_after_its_report_has_executed_its_program(pipe: Pipe) -> None:
    run = Run(os.getpid(), Role.MAIN, pipe[0])
    assert run.executes()
    assert run.has_run


@pytest.mark.parametrize("worker", [False, True])
def test_a_child_whose_spawnd_is_killed_before_it_is_let_go_ends(world: Path, worker: bool) -> None:
    """It is in no state file, so the next spawnd would start a second one."""
    ran = world / "ran"
    argv = ("/bin/sh", "-c", f": > {ran}")
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def be_spawnd() -> None:
        ours, theirs = socket.socketpair()
        launch = Launch(
            theirs.fileno(), argv, {}, service(), ("/dev/null",) * 3, 1024, os.geteuid() == 0, worker=worker
        )
        if worker:
            plan = child.forked_plan(launch)
            pid = fork(lambda: child.become_worker(plan, launch.error_fd, lambda: lambda: os.open(ran, os.O_CREAT)))
        else:
            arrival = PROGRAM.arrival(descriptors(launch), theirs.fileno())
            pid = PROGRAM.start(make_plan(launch, arrival), arrival, theirs.fileno(), ours.fileno())
        theirs.close()
        os.write(write_end, b"%d" % pid)
        signal.pause()
        assert ours

    with child_process(be_spawnd) as spawnd:
        wait_readable(read_end)
        pid = int(os.read(read_end, 16))
        # set up and waiting: of all its descriptors the table's and the pipe are left
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 4)
        pidfd = os.pidfd_open(pid)
        os.kill(spawnd, signal.SIGKILL)
        wait_exit(spawnd)
        wait_readable(pidfd)
    for fd in (pidfd, read_end, write_end):
        os.close(fd)
    assert not ran.exists()


# the pipe on which the service says that it is ready


@pytest.mark.parametrize("said", [b"\n", b"ready\n", b"\nmore"])
def test_a_newline_is_ready(pipe: Pipe, said: bytes) -> None:
    run = Run(1, Role.MAIN, -1, pipe[0])
    assert run.said_ready(os.read) is False
    os.write(pipe[1], said)
    assert run.said_ready(os.read) is True


def test_without_a_newline_it_is_not_ready_and_at_the_end_it_never_will_be(pipe: Pipe) -> None:
    run = Run(1, Role.MAIN, -1, pipe[0])
    os.write(pipe[1], b"soon")
    assert run.said_ready(os.read) is False
    os.close(pipe[1])
    assert run.said_ready(os.read) is None
    assert run.take_ready_fd() == [pipe[0]]
    assert run.take_ready_fd() == []
    assert run.ready_fd == -1


def test_a_newline_behind_much_else_is_found(pipe: Pipe) -> None:
    os.write(pipe[1], b"x" * 60_000 + b"\n")
    assert Run(1, Role.MAIN, -1, pipe[0]).said_ready(os.read) is True


def test_who_never_stops_writing_keeps_nobody_waiting() -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert Run(1, Role.MAIN, -1, endless).said_ready(os.read) is False
    finally:
        os.close(endless)


# signals


@contextmanager
def running() -> Iterator[Run]:
    """A process in a session of its own, that sleeps."""
    read_end, write_end = os.pipe()

    def sleep() -> None:
        for signum in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        os.setsid()
        os.write(write_end, b"!")
        signal.pause()

    try:
        with child_process(sleep) as pid:
            wait_readable(read_end)
            yield Run(pid)
    finally:
        os.close(read_end)
        os.close(write_end)


def state(run: Run) -> str:
    process = read_process(run.pid)
    assert process is not None
    return process.state


def test_kill_reaches_the_process() -> None:
    with running() as run:
        run.kill(signal.SIGUSR1)
        assert wait_exit(run.pid) == -signal.SIGUSR1


def test_a_stopped_process_hears_of_its_end() -> None:
    """A signal that the process is to handle waits until somebody lets it go on."""
    read_end, write_end = os.pipe()

    def wait() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.write(write_end, b"!")
        signal.sigwait({signal.SIGTERM})
        os._exit(7)

    with child_process(wait) as pid:
        wait_readable(read_end)
        os.kill(pid, signal.SIGSTOP)
        run = Run(pid)
        wait_until(lambda: state(run) == "T")
        run.kill(signal.SIGTERM)
        assert wait_exit(pid) == 7
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("signum", [signal.SIGSTOP, signal.SIGTSTP])
def test_what_stops_a_process_leaves_it_stopped(signum: int) -> None:
    with running() as run:
        if signum == signal.SIGTSTP:
            # ignored by the kernel in an orphaned process group, as any session leader's is
            os.kill(run.pid, signal.SIGSTOP)
            wait_until(lambda: state(run) == "T")
        run.kill(signum)
        found = os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WNOWAIT)
        assert found is not None
        assert state(run) == "T"
        assert os.waitid(os.P_PID, run.pid, os.WCONTINUED | os.WNOHANG) is None


def test_a_dead_one_that_is_not_reaped_can_be_signalled() -> None:
    with running() as run:
        run.kill(signal.SIGKILL)
        os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
        run.kill(signal.SIGTERM)
        run.kill_group()


def test_kill_group_takes_the_others_too() -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def lead() -> None:
        os.setsid()
        for _ in range(3):
            if os.fork() == 0:
                signal.pause()
        os.write(write_end, b"!")
        signal.pause()

    with child_process(lead) as pid:
        assert os.read(read_end, 1) == b"!"
        os.close(write_end)
        Run(pid).kill_group()
        # the end of the pipe is the end of all who had it
        wait_readable(read_end)
        assert os.read(read_end, 1) == b""
        assert wait_exit(pid) == -signal.SIGKILL
    os.close(read_end)


def test_kill_group_reaches_one_that_has_no_group_yet() -> None:
    with child_process(signal.pause) as pid:
        assert os.getpgid(pid) == os.getpgid(0)
        Run(pid).kill_group()
        assert wait_exit(pid) == -signal.SIGKILL


@needs_root
def test_a_group_that_may_not_be_killed_is_no_error() -> None:
    """A spawnd that is not root, and a set-uid program that is."""

    def check() -> str:
        with running() as run:
            os.setresuid(65534, 65534, 0)
            try:
                run.kill_group()
            finally:
                os.setresuid(0, 0, 0)
            return state(run)

    assert in_child(check) in "SR"
