"""Forking: what the child has of its parent, and that it never comes back."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from supervisor.notify.untrusted import is_open
from supervisor.process.fork import EXIT_CHILD_FAILED, default_signals, fork
from supervisor.process.pids import clock_ticks, start_time_before_exec, start_time_since
from tests.unit.process.forked import in_child, read_all
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_exit

ALL_SIGNALS = frozenset(signal.valid_signals())
BLOCKABLE = ALL_SIGNALS - {signal.SIGKILL, signal.SIGSTOP}


def _raises() -> None:
    raise ValueError("mine")


def _leaves() -> None:
    sys.exit(0)


@pytest.mark.parametrize("child", [lambda: None, _raises, _leaves])
def test_a_child_that_does_not_leave_by_itself_has_failed(child: object) -> None:
    assert callable(child)
    errors, write_end = os.pipe()

    def run() -> None:
        os.dup2(write_end, 2)
        child()

    pid = fork(run)
    os.close(write_end)
    assert wait_exit(pid) == EXIT_CHILD_FAILED
    told = read_all(errors).decode()
    assert ("ValueError: mine" in told) is (child is _raises)


def test_a_child_with_nobody_to_tell_has_failed_all_the_same() -> None:
    def run() -> None:
        os.close(2)
        raise ValueError("unheard")

    assert wait_exit(fork(run)) == EXIT_CHILD_FAILED


def test_nothing_of_the_parent_is_finished_in_the_child() -> None:
    """Neither its `finally` nor its exit handlers nor what it has in its buffers."""

    def parent() -> bytes:
        read_end, write_end = os.pipe()
        with open(write_end, "wb") as file:
            atexit.register(os.write, write_end, b"exit handler")
            file.write(b"once ")
            try:
                pid = fork(_raises)
            finally:
                file.write(b"finally ")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            assert wait_exit(pid) == EXIT_CHILD_FAILED
        return read_all(read_end)

    assert in_child(parent) == b"once finally "


def test_in_the_child_every_signal_is_blocked_and_wakes_nobody() -> None:
    def parent() -> tuple[int, bool]:
        _, write_end = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end)

        def look() -> None:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            os._exit(0 if blocked == BLOCKABLE and signal.set_wakeup_fd(-1) == -1 else 1)

        status = wait_exit(fork(look))
        return status, signal.set_wakeup_fd(-1) == write_end

    assert in_child(parent) == (0, True)


def test_the_parent_s_handler_never_runs_in_the_child() -> None:
    def parent() -> tuple[int, bytes]:
        read_end, write_end = os.pipe()
        signal.signal(signal.SIGUSR1, lambda _signum, _frame: os.write(write_end, b"%d " % os.getpid()))

        def child() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            default_signals()
            os._exit(0)

        status = wait_exit(fork(child))
        os.kill(os.getpid(), signal.SIGUSR1)
        os.close(write_end)
        return status, read_all(read_end).replace(b"%d " % os.getpid(), b"parent ")

    assert in_child(parent) == (-signal.SIGUSR1, b"parent ")


@pytest.mark.parametrize("blocked", [frozenset(), frozenset({signal.SIGUSR2})])
def test_the_parent_s_mask_is_what_it_was(blocked: frozenset[signal.Signals]) -> None:
    def parent() -> bool:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        wait_exit(fork(lambda: os._exit(0)))
        return signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked

    assert in_child(parent)


@needs_root
def test_where_there_is_no_process_to_be_had_the_parent_hears_it() -> None:
    def parent() -> tuple[str, bool]:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        os.setresuid(65534, 65534, 65534)
        try:
            fork(lambda: os._exit(0))
        except BlockingIOError as error:
            return str(error), signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        return "no error", False

    assert in_child(parent) == ("[Errno 11] Resource temporarily unavailable", True)


def test_default_signals_gives_a_child_the_signals_of_a_fresh_process() -> None:
    def parent() -> tuple[list[int], bool]:
        for signum in BLOCKABLE - {signal.SIGCHLD}:  # who ignores that one has nobody to wait for
            signal.signal(signum, signal.SIG_IGN)
        read_end, write_end = os.pipe()

        def child() -> None:
            default_signals()
            # the kernel's word: Python still believes in what it set
            rows = dict(row.split(":\t") for row in Path("/proc/self/status").read_text().splitlines() if ":\t" in row)
            masks = int(rows["SigIgn"], 16) | int(rows["SigCgt"], 16)
            os.write(write_end, bytes(signum for signum in ALL_SIGNALS if masks >> (signum - 1) & 1))
            os._exit(0 if signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set() else 1)

        status = wait_exit(fork(child))
        os.close(write_end)
        return list(read_all(read_end)), status == 0

    assert in_child(parent) == ([], True)


def test_descriptors_that_are_kept_have_their_numbers_and_others_are_gone() -> None:
    """They are as many as anybody wants, in whatever order."""
    report, own = os.pipe()
    others = [os.dup(0) for _ in range(100)]
    kept = [others[90], own, others[7], others[8]]

    def tell() -> None:
        found = [fd for fd in sorted(map(int, os.listdir("/proc/self/fd"))) if is_open(fd)]  # without that of the list
        os.write(own, repr([found, [os.get_inheritable(fd) for fd in kept]]).encode())
        os._exit(0)

    pid = fork(tell, kept)
    os.close(own)
    assert read_all(report) == repr([sorted({0, 1, 2, *kept}), [False] * 4]).encode()
    assert wait_exit(pid) == 0
    for fd in others:
        os.close(fd)


def test_a_descriptor_that_is_closed_cannot_be_kept() -> None:
    closed = 900
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        fork(lambda: os._exit(0), [closed])
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_start_time_is_the_tick_of_the_fork() -> None:
    """Forks at all times of a tick: each is in the tick before it or in that of its look."""
    seen = []
    for _ in range(200):
        begun = clock_ticks()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        seen.append((start_time_since(begun, pid), start_time_since(begun - 1, pid), start_time_before_exec(pid)))
        os.waitpid(pid, 0)
    assert [known for known, _, _ in seen] == [read for _, _, read in seen]
    assert [looked for _, looked, _ in seen] == [read for _, _, read in seen]
