"""Processes below one that is a subreaper and owns all that it may kill; pids that are used again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

import prctl

from supervisor.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, unshare
from supervisor.process.pids import read_process
from tests.unit.process.forked import in_child
from tests.unit.waiting import wait_readable, wait_until

T = TypeVar("T")


class Family:
    """Processes below this one."""

    def __init__(self) -> None:
        prctl.set_child_subreaper(1)
        self._read_end, self._write_end = os.pipe()

    def start(self, *, session: bool = False, below: int = 0) -> list[int]:
        """A process, in a session of its own or in ours, and a chain of so many below it, from its top on.

        All of them are there.
        """
        first = os.fork()
        if first == 0:
            self._live(session, below)
        pids = [0] * (1 + below)
        for _ in pids:
            wait_readable(self._read_end)
            left, pid = map(int, os.read(self._read_end, 16).split())
            pids[below - left] = pid
        assert pids[0] == first
        return pids

    def _live(self, session: bool, below: int) -> NoReturn:
        try:
            if session:
                os.setsid()
            if below and os.fork() == 0:
                self._live(False, below - 1)
            os.write(self._write_end, b"%7d %8d" % (below, os.getpid()))  # written at once: they come in any order
            signal.pause()
        finally:
            os._exit(1)

    def alive(self, *pids: int) -> list[bool]:
        """Which of them live on, once the kills have had their effect on the others."""
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        return [(process := read_process(pid)) is not None and process.state not in "ZX" for pid in pids]

    def end(self) -> None:
        """Nothing of it is left, whatever the test found."""
        with suppress(ChildProcessError):
            while True:
                for entry in os.listdir("/proc"):
                    process = read_process(int(entry)) if entry.isdigit() else None
                    if process is not None and process.parent == os.getpid():
                        os.kill(process.pid, signal.SIGKILL)
                os.wait()


def family(check: Callable[[Family], T]) -> T:
    """The result of `check` in a process of its own, which has this family."""

    def run() -> T:
        family = Family()
        try:
            return check(family)
        finally:
            family.end()

    return in_child(run)


def wait_gone(family: Family, *pids: int) -> None:
    wait_until(lambda: not any(family.alive(*pids)))


def family_with_chosen_pids(check: Callable[[Family], T]) -> T:
    """As `family`, in a PID namespace of its own, where `next_pid` works.  Needs root."""

    def apart() -> T:
        unshare(CLONE_NEWPID | CLONE_NEWNS)  # the namespace is that of the next child

        def inside() -> T:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
            return family(check)

        return in_child(inside)

    return in_child(apart)


def next_pid(pid: int) -> None:
    """Have the next process get this pid, which must be free: pid_namespaces(7)."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
