"""Waiting for the end of what a dead process has left: in its cgroup, or by pid where there is none."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping

from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.cgroup import Leaf, read_populated
from supervisor.process.leftovers import kill_processes
from supervisor.process.pids import hold_all

EMPTY_TIMEOUT = 5.0  # seconds for killed processes to be gone: more is a kernel that holds them


class LastWait:
    """The time that killed processes have to be gone: `too_long` is called once it has passed, after a warning."""

    def __init__(self, loop: Loop, name: str, too_long: Callable[[], None]) -> None:
        self._loop = loop
        self._name = name
        self._too_long = too_long
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Count from now on, or from before."""
        if self._timer is None:
            self._timer = self._loop.limit_later(EMPTY_TIMEOUT, self._pass)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        log.warning("%s: processes that were killed are still there after %g s", self._name, EMPTY_TIMEOUT)
        self._too_long()


class Emptying:
    """Waits until a cgroup is empty, or will not be although all in it is killed, and calls `done` once.

    Its processes are killed at once unless it is `patient`: then by `kill`, if ever.
    Raises StepError or OSError where that cannot be waited for, and then `done` is not called.
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
        # the last of them may have gone before the watch, and the kernel tells only who has read
        loop.call_soon(self._look)

    def kill(self) -> None:
        """End the processes, as they have had their time.  Raises StepError."""
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
    """Waits for processes, by pid and start time, and calls `done` once, when none is left or they will not end.

    `find` looks for more of them once these have ended, which may have forked meanwhile.  Owns a pidfd for each.
    Raises OSError where there is none to be had, and then `done` is not called.
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
        loop.call_soon(self._look)  # they may have ended already

    def kill(self) -> None:
        """End the processes, as they have had their time."""
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
            log.warning("%s: cannot wait for what it has left: %s", self._name, error.strerror)
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
    """In the place of `done` once that has been called."""
