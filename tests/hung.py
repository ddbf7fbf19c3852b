"""Processes whose locks are not to be had until the server of a FUSE file answers.

The lock of an execve: the kernel holds it while it closes a file that is close-on-exec, and waits for the server.

The mmap lock: a helper of the process reads its memory, at a page of such a file; the kernel waits for the page with
the mmap lock held for reading.  The process then changes its mappings, for which it waits for that lock, and the kernel
gives the lock to no reader behind it.  Both take no privileges.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, NoReturn

import pytest

from supervisor.process.pids import read_process, start_time_before_exec
from tests import fuse
from tests.daemon import command_name
from tests.unit.waiting import wait_until

NAME = "hung"
SLEEP = "/bin/sleep"
SHOWN = "this kernel shows others a process that is in an execve"
SHOWN_S = 5.0  # seconds until a kernel that still shows a process in an execve does so for good: older ones do
# argv: the file.  The helper waits for nothing but the page once it has said that it reads.
PROGRAM = f"""
import ctypes, mmap, os, sys, time

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, os.open(sys.argv[1], os.O_RDONLY), 0)
memory = os.open(f"/proc/{{os.getpid()}}/mem", os.O_RDONLY)
told, tells = os.pipe()
helper = os.fork()
if helper == 0:
    os.write(tells, b".")
    os.pread(memory, 1, address)
    os._exit(1)
os.read(told, 1)
while open(f"/proc/{{helper}}/stat", "rb").read().rpartition(b")")[2].split()[0] not in (b"S", b"D"):
    time.sleep(0.001)
with open("/proc/self/comm", "w") as file:
    file.write("{NAME}")
while True:
    mmap.mmap(-1, mmap.PAGESIZE)
"""


def start_hung(path: str, env: dict[str, str]) -> int:
    """Start such a process in a session of its own, with the file at `path`, as a child of this process."""
    return os.posix_spawn(sys.executable, [sys.executable, "-ISc", PROGRAM, path], env, setsid=True)


def is_hung(pid: int) -> bool:
    """Whether the process waits for its mmap lock."""
    process = read_process(pid)
    return process is not None and process.state == "D" and command_name(pid) == NAME


class Executing(NamedTuple):
    """A child that hangs in an execve, until `release` lets it go on: then it sleeps.  `others` are more of them."""

    pid: int
    started: int
    others: list[int]
    release: Callable[[], None]


@contextmanager
def executing(count: int = 1) -> Iterator[Executing]:
    """Such children, in sessions of their own, ended and reaped at the end unless the test has reaped them."""
    pids: list[int] = []
    with ExitStack() as stack:
        stack.callback(_end, pids)
        server = stack.enter_context(ExitStack())
        path = server.enter_context(fuse.unanswering(fuse.FLUSH))
        read_end, write_end = os.pipe()  # they wait for its end before they execute anything
        for _ in range(count):
            pids.append(os.fork())
            if pids[-1] == 0:
                _execute(path, read_end, write_end)
        *others, pid = pids
        started = start_time_before_exec(pid)
        os.close(read_end)
        os.close(write_end)
        shown = time.monotonic() + SHOWN_S
        wait_until(lambda: all(map(_is_executing, pids)) or time.monotonic() > shown)
        if not all(map(_is_executing, pids)) and all(command_name(each) not in ("", "sleep") for each in pids):
            pytest.skip(SHOWN)
        wait_until(lambda: all(map(_is_executing, pids)))
        yield Executing(pid, started, others, server.close)


def _is_executing(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.started < 0


def _execute(path: str, read_end: int, write_end: int) -> NoReturn:
    try:
        os.setsid()
        os.close(write_end)
        os.read(read_end, 1)
        os.open(path, os.O_RDWR)
        os.execv(SLEEP, [SLEEP, "100000"])  # noqa: S606
    finally:
        os._exit(1)


def _end(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
