"""Waiting for the leftovers of a dead process to end: in its cgroup, or by pid where there is none."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping

from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.cgroup import Leaf, read_populated
from supervisor.process.leftovers import kill_processes
from supervisor.process.pids import hold_all

AGAIN = 0.5  # seconds until another try
EMPTY_TIMEOUT = 5.0  # seconds for killed processes to be gone; after that the kernel is holding them


class LastWait:
    """Time limit for killed processes to be gone; after it, logs a warning and calls `too_long`."""

    def __init__(self, loop: Loop, name: str, too_long: Callable[[], None]) -> None:
        self._loop = loop
        self._name = name
        self._too_long = too_long
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Start the time limit, unless it has started."""
        if self._timer is None:
            self._timer = self._loop.limit_later(EMPTY_TIMEOUT, self._pass)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        log.warning("%s: processes that were killed are still there after %g s", self._name, EMPTY_TIMEOUT)
        self._too_long()


class Again:
    """Another try to end what is left, after a while, as the host had no room for the last one.

    `act` is told whether the time of what is left is up by then.
    """

    def __init__(self, loop: Loop, act: Callable[[bool], None]) -> None:
        self._is_overdue = False
        loop.call_later(AGAIN, lambda: act(self._is_overdue))

    def kill(self) -> None:
        self._is_overdue = True


class Emptying:
    """Wait until a cgroup is empty, or until its killed processes are overdue, and call `done` once.

    The processes are killed at once, or if `patient` by a later call of `kill`. Raises StepError or OSError
    if waiting is impossible; `done` is not called then.
    """

    def __init__(self, loop: Loop, name: str, leaf: Leaf, done: Callable[[], None], patient: bool = False) -> None:
        self._loop = loop
        self._leaf = leaf
        self._done = done
        self._wait = LastWait(loop, name, self._end)
        if not patient:
            leaf.kill()
        self._fd = leaf.open_events()
        try:
            loop.watch(self._fd, select.EPOLLPRI, lambda _events: self._look())
        except BaseException:
            os.close(self._fd)
            raise
        if not patient:
            self._wait.begin()
        # The last process may have gone before the watch began, and the kernel reports changes only after a
        # read.
        loop.call_soon(self._look)

    def kill(self) -> None:
        """Kill the processes: their time is up. Raises StepError."""
        self._leaf.kill()
        self._wait.begin()

    def _look(self) -> None:
        if self._fd >= 0 and not read_populated(self._fd):
            self._end()

    def _end(self) -> None:
        self._wait.end()
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._done()


class Parting:
    """Wait for processes, by pid and start time, and call `done` once when all have ended or are overdue.

    `find` looks for processes that these have forked meanwhile. Owns a pidfd for each process. Raises OSError
    if no pidfd can be opened; `done` is not called then.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        processes: Mapping[int, int],
        find: Callable[[], Mapping[int, int]],
        done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._name = name
        self._find = find
        self._done = done
        self._held: dict[int, tuple[int, int]] = {}  # pid and start time by pidfd
        self._wait = LastWait(loop, name, self._end)
        try:
            self._hold(processes)
        except OSError:
            self._release()
            raise
        loop.call_soon(self._look)  # the processes may have ended already

    def kill(self) -> None:
        """Kill the processes: their time is up."""
        kill_processes(dict(self._held.values()))
        self._wait.begin()

    def _hold(self, processes: Mapping[int, int]) -> None:
        for pid, pidfd in hold_all(processes).items():
            self._held[pidfd] = pid, processes[pid]
            self._loop.watch(pidfd, select.EPOLLIN, lambda _events, pidfd=pidfd: self._ended(pidfd))  # type: ignore[misc]

    def _ended(self, pidfd: int) -> None:
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        del self._held[pidfd]
        self._look()

    def _look(self) -> None:
        if self._held or self._done is _nothing:
            return
        try:
            self._hold(self._find())
        except OSError as error:
            log.warning("%s: cannot wait for the processes that it has left: %s", self._name, error.strerror)
        if not self._held:
            self._end()

    def _end(self) -> None:
        self._wait.end()
        self._release()
        done, self._done = self._done, _nothing
        done()

    def _release(self) -> None:
        for pidfd in self._held:
            self._loop.unwatch(pidfd)
            os.close(pidfd)
        self._held.clear()


def _nothing() -> None:
    """Replace `done` after its call."""
