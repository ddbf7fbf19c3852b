"""Closing what others made without waiting for it: one child at a time, and a queue with a bound.

Queued descriptors are in this process's table, and so in those of its forked children until they close them.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from supervisor.notify.untrusted import (
    MOST_CLOSED,
    LocalFileSystems,
    close_elsewhere,
    is_closed_at_once,
    is_file,
    is_open,
    may_hold_others,
)

MOST = 1024  # descriptors in a queue before their senders are to wait
PAUSE = 0.1  # seconds until it is tried again where there was no child to be had
LONGEST = 5.0  # seconds for a child to end, before it is left to itself
MOST_LEFT = 16  # children that are left to themselves: what they wait for may never come
RELEASE_TIME = 0.2  # seconds that an address is waited for

WhenReaped = Callable[[int, Callable[[], None]], None]


"""Have a function called once a child, by its pid, has been reaped."""


class Watcher(Protocol):
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable: ...


def has_ended(pid: int, seconds: float) -> bool:
    """Whether a child has ended, or has done so after a while.  It may have been reaped."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(pidfd)


class PidfdReaper:
    """Reaps each child by a pidfd of its own: for a process that reaps no others by their signal.

    Where there is no number for one, it looks again after a while.
    """

    def __init__(self, loop: Watcher, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock

    def __call__(self, pid: int, ended: Callable[[], None]) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self._clock.call_later(PAUSE, lambda: self._look(pid, ended))
            return
        self._loop.watch(pidfd, select.EPOLLIN, lambda _events: self._reap(pidfd, ended))

    def _look(self, pid: int, ended: Callable[[], None]) -> None:
        with suppress(ChildProcessError):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None:
                self(pid, ended)
                return
        ended()

    def _reap(self, pidfd: int, ended: Callable[[], None]) -> None:
        self._loop.unwatch(pidfd)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        ended()


@dataclass(slots=True, eq=False)
class Origin:
    """A cause of descriptors to be closed, for example a service, with their number in the queues."""

    waiting: int = 0

    @property
    def has_room(self) -> bool:
        """Whether more should be taken from this origin."""
        return self.waiting < MOST


class ClosingQueue:
    """Owns what it is given until a child has it.  `on_room` is called when there is room again."""

    def __init__(self, loop: Clock, when_reaped: WhenReaped) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self._loop = loop
        self._when_reaped = when_reaped
        self._fds: list[int] = []
        self._origins: dict[int, Origin] = {}  # by descriptor
        self._pid = -1
        self._timer: Cancellable | None = None  # until the child is overdue, or another is tried
        self._left: set[int] = set()

    def __len__(self) -> int:
        return len(self._fds)

    @property
    def has_room(self) -> bool:
        """Whether more should be taken from those who can send descriptors."""
        return len(self._fds) < MOST

    @property
    def children(self) -> int:
        """How many there are, those included that are left to themselves."""
        return len(self._left) + (self._pid >= 0)

    def close(self, fds: Iterable[int], origin: Origin | None = None) -> None:
        for fd in fds:
            self._fds.append(fd)
            if origin is not None:
                self._origins[fd] = origin
                origin.waiting += 1
        if self._timer is None:
            self._go_on()

    def _start(self) -> int:
        some = self._fds[:MOST_CLOSED]
        pid = close_elsewhere(some)
        del self._fds[: len(some)]
        for fd in some:
            if (origin := self._origins.pop(fd, None)) is not None:
                origin.waiting -= 1
        self._when_reaped(pid, lambda: self._ended(pid))
        return pid

    def _go_on(self) -> None:
        """Start the next child, if there is something to close and none that closes."""
        if self._pid >= 0 or not self._fds:
            return
        had_room = self.has_room
        try:
            self._pid = self._start()
        except OSError:  # of processes or memory there is none now
            self._timer = self._loop.call_later(PAUSE, self._try_again)
            return
        self._timer = self._loop.call_later(LONGEST, self._overdue)
        if not had_room and self.has_room:
            self.on_room()

    def _try_again(self) -> None:
        self._timer = None
        self._go_on()

    def _overdue(self) -> None:
        """The child waits for something: for what a signal ends, or for what nothing ends."""
        self._timer = None
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._leave_overdue()
        self._go_on()

    def _leave_overdue(self) -> None:
        """Leave a child that is overdue to itself, where not too many are already."""
        is_overdue = self._pid >= 0 and self._timer is None
        if is_overdue and len(self._left) < MOST_LEFT:
            self._left.add(self._pid)
            self._pid = -1

    def _ended(self, pid: int) -> None:
        self._left.discard(pid)
        if pid == self._pid:
            self._pid = -1
            self._stop_timer()
        self._leave_overdue()
        if self._timer is None:
            self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def safe_close(queue: ClosingQueue, sock: socket.socket) -> None:
    """Close a connection, in which its peer may have left descriptors: then a child does it."""
    if may_hold_others(sock):
        queue.close([sock.detach()])
    else:
        sock.close()


class Closer:
    """Closes descriptors of all kinds: files, whose file systems may not answer, apart from all others.

    `file_systems` are those whose files this process may have at all.
    """

    def __init__(self, loop: Clock, when_reaped: WhenReaped) -> None:
        self.file_systems = LocalFileSystems()
        self._when_reaped = when_reaped
        self._releasing: set[int] = set()
        self._files = ClosingQueue(loop, when_reaped)
        self._others = ClosingQueue(loop, when_reaped)

    def close(self, fds: Iterable[int], origin: Origin | None = None) -> None:
        """Take over all of them, and count them for their origin until a child has them.

        A number that is no descriptor's is left out, as it may be another's later.
        """
        files, others = [], []
        for fd in fds:
            if not is_open(fd):
                continue
            if is_closed_at_once(fd):
                with suppress(OSError):  # it is closed in any case
                    os.close(fd)
            elif is_file(fd):
                files.append(fd)
            else:
                others.append(fd)
        if files:
            self._files.close(files, origin)
        if others:
            self._others.close(others, origin)

    def release(self, fds: Sequence[int]) -> None:
        """Take over sockets whose addresses are wanted again at once.

        They wait behind nothing: a child of their own closes them, and is waited for a moment.  Where too many such
        children hang, they go the way of all others.
        """
        for first in range(0, len(fds), MOST_CLOSED):
            self._release(fds[first : first + MOST_CLOSED])

    def _release(self, fds: Sequence[int]) -> None:
        if len(self._releasing) >= MOST_LEFT:
            self._others.close(fds)
            return
        try:
            pid = close_elsewhere(fds)
        except OSError:  # of processes or memory there is none now
            self._others.close(fds)
            return
        self._releasing.add(pid)
        self._when_reaped(pid, lambda: self._releasing.discard(pid))
        has_ended(pid, RELEASE_TIME)
