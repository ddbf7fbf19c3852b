"""Closing foreign descriptors without waiting: one child at a time, and a bounded queue.

Queued descriptors are in this process's table, and so in the tables of its forked children until these close them.
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

MOST = 1024  # descriptors in a queue beyond which their senders have to wait
PAUSE = 0.1  # seconds until the next attempt if no child could be forked
LONGEST = 5.0  # seconds for a child to end, before it is left behind
MOST_LEFT = 16  # children left behind, which may never end
RELEASE_TIME = 0.2  # seconds to wait for an address

WhenReaped = Callable[[int, Callable[[], None]], None]


"""Registers a function to be called once the child with this pid has been reaped."""


class Watcher(Protocol):
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable: ...


def has_ended(pid: int, seconds: float) -> bool:
    """Whether a child has ended, or ends within `seconds`. It may have been reaped."""
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
    """Reaping of each child by its own pidfd, for processes that do not reap on SIGCHLD.

    If no pidfd can be opened, it checks the child at intervals.
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
    """A source of descriptors to be closed, for example a service, with their number in the queues."""

    waiting: int = 0

    @property
    def has_room(self) -> bool:
        """Whether more descriptors should be taken from this origin."""
        return self.waiting < MOST


class ClosingQueue:
    """Queue of descriptors; owns them until a child has them. `on_room` is called when there is room again."""

    def __init__(self, loop: Clock, when_reaped: WhenReaped) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self._loop = loop
        self._when_reaped = when_reaped
        self._fds: list[int] = []
        self._origins: dict[int, Origin] = {}  # by descriptor
        self._pid = -1
        self._timer: Cancellable | None = None  # the child is overdue then, or the next attempt is due
        self._left: set[int] = set()

    def __len__(self) -> int:
        return len(self._fds)

    @property
    def has_room(self) -> bool:
        """Whether more descriptors should be accepted from senders."""
        return len(self._fds) < MOST

    @property
    def children(self) -> int:
        """The number of children, including those left behind."""
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
        """Start the next child, if there is something to close and no child is closing."""
        if self._pid >= 0 or not self._fds:
            return
        had_room = self.has_room
        try:
            self._pid = self._start()
        except OSError:  # no processes or no memory
            self._timer = self._loop.call_later(PAUSE, self._try_again)
            return
        self._timer = self._loop.call_later(LONGEST, self._overdue)
        if not had_room and self.has_room:
            self.on_room()

    def _try_again(self) -> None:
        self._timer = None
        self._go_on()

    def _overdue(self) -> None:
        """Kill a child that is overdue, and leave it behind if even that does not end it."""
        self._timer = None
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._leave_overdue()
        self._go_on()

    def _leave_overdue(self) -> None:
        """Leave an overdue child behind, unless too many have been already."""
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
    """Close a connection; if its peer may have left descriptors in it, a child does."""
    if may_hold_others(sock):
        queue.close([sock.detach()])
    else:
        sock.close()


class Closer:
    """Closes descriptors of all kinds; files, whose file systems may hang, have a queue of their own.

    `file_systems` are those whose files this process may hold at all.
    """

    def __init__(self, loop: Clock, when_reaped: WhenReaped) -> None:
        self.file_systems = LocalFileSystems()
        self._when_reaped = when_reaped
        self._releasing: set[int] = set()
        self._files = ClosingQueue(loop, when_reaped)
        self._others = ClosingQueue(loop, when_reaped)

    def close(self, fds: Iterable[int], origin: Origin | None = None) -> None:
        """Take over the descriptors, and count them for their origin until a child has them.

        A closed number is skipped, as it may be another descriptor later.
        """
        files, others = [], []
        for fd in fds:
            if not is_open(fd):
                continue
            if is_closed_at_once(fd):
                with suppress(OSError):  # an error closes it as well
                    os.close(fd)
            elif is_file(fd):
                files.append(fd)
            else:
                others.append(fd)
        if files:
            self._files.close(files, origin)
        if others:
            self._others.close(others, origin)

    @property
    def has_room(self) -> bool:
        """Whether one more child may release something: those before it have ended, but for a few that may hang."""
        return len(self._releasing) < MOST_LEFT

    def expect(self, pid: int) -> None:
        """Have a child reaped that releases something."""
        self._releasing.add(pid)
        self._when_reaped(pid, lambda: self._releasing.discard(pid))

    def release(self, fds: Sequence[int]) -> None:
        """Take over sockets whose addresses are needed again at once.

        They skip the queue: an extra child closes them, and is waited for a moment. If too many such children
        hang, the sockets are queued.
        """
        for first in range(0, len(fds), MOST_CLOSED):
            self._release(fds[first : first + MOST_CLOSED])

    def _release(self, fds: Sequence[int]) -> None:
        if not self.has_room:
            self._others.close(fds)
            return
        try:
            pid = close_elsewhere(fds)
        except OSError:  # no processes or no memory
            self._others.close(fds)
            return
        self.expect(pid)
        has_ended(pid, RELEASE_TIME)
