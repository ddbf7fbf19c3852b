"""A filter for system calls binds the program, and a failure behind it is reported, whatever it refuses."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, fcntl
from typing import Any

import pytest

from supervisor.launch.operations import Kind, operation
from supervisor.process.failure import ErrorPipe, failed
from supervisor.process.run import SHARED_REPORT, Role, Run
from tests.unit.launch.filters import ALLOW, LOAD, RETURN, instruction, refusing, refusing_others
from tests.unit.process.forked import open_numbers
from tests.unit.process.launched import PYTHON, Outcome, service, start

BOUND = operation(Kind.NO_NEW_PRIVS, "set no_new_privs")
LOG, NEW_LISTENER = 1 << 1, 1 << 3  # flags of seccomp(2)


def filter_of(numbers: list[int], step: str = "install a filter", flags: int = 0) -> bytes:
    return operation(Kind.FILTER, step, numbers=[flags, *numbers])


def started(*argv: str, filters: list[bytes], **changes: Any) -> Outcome:
    return start(service(**changes), argv, more=[BOUND, *filters])


def test_a_refused_call_fails_in_the_program() -> None:
    script = "import socket\ntry: socket.socket()\nexcept OSError as error: print(error.errno)"
    outcome = started(PYTHON, "-ISc", script, filters=[filter_of(refusing(errno.EXDEV, "socket"))])
    assert (outcome.failure, outcome.output, outcome.status) == (None, f"{errno.EXDEV}\n", 0)


def test_several_filters_and_flags() -> None:
    script = "grep -E 'Seccomp|NoNewPrivs' /proc/self/status"
    everything = [instruction(RETURN, ALLOW)]
    outcome = started("/bin/sh", "-c", script, filters=[filter_of(everything), filter_of(everything, flags=LOG)])
    assert outcome.output.split() == ["NoNewPrivs:", "1", "Seccomp:", "2", "Seccomp_filters:", "2"]


@pytest.mark.parametrize(
    "refused", [("execve",), ("execve", "write"), ("execve", "write", "exit_group")], ids=lambda names: names[-1]
)
def test_a_refused_exec_is_reported(refused: tuple[str, ...]) -> None:
    outcome = started("/bin/true", filters=[filter_of(refusing(errno.EPERM, *refused))])
    assert outcome.failed_step == ("exec", "/bin/true", errno.EPERM)
    assert os.WIFSIGNALED(outcome.status) == ("exit_group" in refused)


def test_nothing_but_the_exec_comes_behind_a_filter() -> None:
    """Many arguments and variables need memory, which the filter refuses."""
    missing, words = "/nowhere/missing", tuple("x" * 1000 + str(number) for number in range(500))
    filters = [filter_of(refusing_others(errno.EPERM, "execve"))]
    outcome = started(missing, *words, "$WORDS", filters=filters, env={"WORDS": "a " * 9999}, expand_env=True)
    assert outcome.failed_step == ("exec", missing, errno.ENOENT)


def test_a_filter_that_refuses_the_next_one() -> None:
    first = filter_of(refusing_others(errno.EPERM, "execve"))
    outcome = started("/bin/true", filters=[first, filter_of([instruction(RETURN, ALLOW)], "install another one")])
    assert outcome.failed_step == ("install another one", "", errno.EPERM)


def test_a_filter_that_never_returns_is_refused() -> None:
    outcome = started("/bin/true", filters=[filter_of([instruction(LOAD, 0)])])
    assert outcome.failed_step == ("install a filter", "", errno.EINVAL)


def test_the_report_of_a_long_path() -> None:
    path = "/" + "/".join(["\udcff" * 200] * 20)
    outcome = started(path, filters=[filter_of(refusing_others(errno.EPERM, "exit_group"))])
    assert outcome.failed_step == ("exec", path, errno.EPERM)


def test_limits_do_not_keep_a_report_away() -> None:
    """Memory with a size counts for `fsize`, a descriptor for `nofile`."""
    limits = {"fsize": (0, 0), "nofile": (3, 3)}
    outcome = started("/bin/true", filters=[filter_of(refusing(errno.EPERM, "execve", "write"))], limits=limits)
    assert outcome.failed_step == ("exec", "/bin/true", errno.EPERM)


def test_the_program_has_no_trace_of_the_memory() -> None:
    script = "ls -l /proc/self/fd; cat /proc/self/maps"
    outcome = started("/bin/sh", "-c", script, filters=[filter_of([instruction(RETURN, ALLOW)])])
    assert outcome.status == 0
    assert "memfd" not in outcome.output


# the end of spawnd


@contextmanager
def reporting() -> Iterator[tuple[Run, socket.socket]]:
    before = open_numbers()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    run = Run(1, Role.MAIN, ours.detach())
    try:
        yield run, theirs
    finally:
        theirs.close()
        run.close()
    assert open_numbers() == before


def send(theirs: socket.socket, fd: int) -> None:
    """Send the descriptor as `launch` does; it is closed here."""
    theirs.send(b" ")
    socket.send_fds(theirs, [b" "], [fd])
    os.close(fd)


def memory(content: bytes, size: int = SHARED_REPORT, seals: int = F_SEAL_SHRINK | F_SEAL_GROW) -> int:
    fd = os.memfd_create("report", os.MFD_ALLOW_SEALING)
    os.truncate(fd, size)
    os.pwrite(fd, content, 0)
    fcntl(fd, F_ADD_SEALS, seals)
    return fd


def test_memory_without_a_report_is_a_success() -> None:
    with reporting() as (run, theirs):
        assert not run.read_errors()
        send(theirs, memory(b""))
        assert not run.read_errors()
        assert os.readlink(f"/proc/self/fd/{run.report_fd}").startswith("/memfd:report")
        assert not os.get_inheritable(run.report_fd)
        theirs.close()
        assert run.read_errors()
        assert (run.setup_error(), run.failure, run.report_fd) == (None, b"", -1)


@pytest.mark.parametrize("is_read_between", [False, True])
def test_the_report_in_the_memory_counts(is_read_between: bool) -> None:
    with reporting() as (run, theirs):
        theirs.send(b" ")
        if is_read_between:
            assert not run.read_errors()
        socket.send_fds(theirs, [b" "], [fd := memory(b'{"step": "exec", "path": "", "errno": 1, "cause": "no"}')])
        os.close(fd)
        theirs.close()
        assert run.read_errors()
        assert str(run.setup_error()) == "cannot exec: no (EPERM)"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * SHARED_REPORT,
        b"[" * SHARED_REPORT,
        b'{"step": "", "path": "", "cause": "", "errno": 1e999}',
        b'{"step": "", "path": "", "cause": "", "about": "", "name": "", "value": 0, "errno": 99999999999999999999}',
        b'{"step": "\\ud800", "path": "", "cause": "no", "errno": 1}',
        b"[]",
    ],
    ids=lambda content: content[-20:].decode("latin-1"),
)
def test_a_report_that_makes_no_sense_is_a_failure(content: bytes) -> None:
    with reporting() as (run, theirs):
        send(theirs, memory(content))
        theirs.close()
        assert run.read_errors()
        assert "unreadable report" in str(run.setup_error())


def test_other_descriptors_are_not_read() -> None:
    with reporting() as (run, theirs):
        read_end, write_end = os.pipe()
        send(theirs, read_end)
        send(theirs, os.memfd_create("not sealed", os.MFD_ALLOW_SEALING))
        send(theirs, os.dup(write_end))
        os.close(write_end)
        theirs.close()
        assert run.read_errors()
        assert run.setup_error() is None


def test_a_run_that_ends_early_gives_the_memory_back() -> None:
    with reporting() as (run, theirs):
        send(theirs, memory(b"x"))
        assert not run.read_errors()
        assert run.report_fd >= 0


def test_a_report_by_the_socket_needs_no_memory() -> None:
    with reporting() as (run, theirs):
        send(theirs, memory(b""))
        ErrorPipe(theirs.fileno()).report(failed("read", "/etc/x", errno.EIO))
        theirs.close()
        assert run.read_errors()
        error = run.setup_error()
        assert error is not None
        assert (error.step, error.path, error.errno) == ("read", "/etc/x", errno.EIO)
