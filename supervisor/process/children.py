"""Reaping: the one place where spawnd waits for processes.

A child is registered right after its fork, before control returns to the loop, so its owner is known when its
death is noticed. An unregistered child is an orphan that spawnd inherited as the subreaper; it is reaped and
forgotten. An `AnsweringChild` does blocking work that must delay nothing else.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.loop.loop import Loop
from supervisor.process.fork import default_signals, fork
from supervisor.process.leftovers import Orphans

REALTIME = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)

PIECE = 65536  # bytes per read of an answer
WHOLE = b"\0"  # behind an answer: the child was not killed before
TRIES = 3  # children for an answer

Answer = Callable[[int], object]
"""The work of the child: writes the answer to a descriptor, which it may close, and returns."""
Done = Callable[[bytes, bool], None]
"""Receives the answer and whether it came in time; a late answer may be incomplete."""


class Exit(NamedTuple):
    """How a process ended: by `exit` with a status or killed by a signal; not `known` if it was no child of ours."""

    status: int = 0
    signum: int = 0
    core: bool = False
    known: bool = True

    @property
    def clean(self) -> bool:
        """Whether it ended well: status 0, or a signal that asks a daemon to end (as systemd counts them)."""
        asked = (0, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
        return self.known and self.status == 0 and self.signum in asked

    def describe(self) -> str:
        if not self.known:
            return "ended in an unknown way: it was not a child of this spawnd"
        if self.signum:
            return f"killed by {signal_name(self.signum)}{' (core dumped)' if self.core else ''}"
        return f"exited with status {self.status}"


UNKNOWN = Exit(known=False)


def signal_name(signum: int) -> str:
    """Return the name of a signal as in `kill -l`: `KILL`, `TERM`, `RTMIN+1`."""
    if signum in REALTIME:
        return f"RTMIN+{signum - signal.SIGRTMIN}" if signum > signal.SIGRTMIN else "RTMIN"
    try:
        return signal.Signals(signum).name.removeprefix("SIG")
    except ValueError:
        return f"signal {signum}"


class Child(Protocol):
    """The owner of a child process."""

    def died(self, pid: int) -> bool | None:
        """Handle the death of the process, whose pid and process group id stay its own until it is reaped.

        Return False to leave it unreaped until the owner calls `Children.finish`.
        """

    def reaped(self, pid: int, exit: Exit) -> None:
        """Handle the end of the process after it is reaped; another process may have `pid` now."""


class _Helper:
    """A child of whose end nothing but the fact matters."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def died(self, pid: int) -> None:
        pass

    def reaped(self, pid: int, exit: Exit) -> None:
        self._ended()


class Children:
    """All child processes of spawnd by pid."""

    def __init__(self, on_orphan: Callable[[int, Exit], None]) -> None:
        self._children: dict[int, Child] = {}
        self._staying: set[int] = set()  # dead children that wait for `finish`
        self._expected = 0  # children that fork servers are about to make
        self._on_orphan = on_orphan
        # called for an orphan that is dead and not reaped
        self.on_dead_orphan: Callable[[int], None] = lambda pid: None
        self.orphans = Orphans()

    def register(self, pid: int, child: Child) -> None:
        self._children[pid] = child

    def when_reaped(self, pid: int, ended: Callable[[], None]) -> None:
        """Register a child of whose end nothing but the fact matters."""
        self.register(pid, _Helper(ended))

    def expect(self, more: int) -> None:
        """Note children that are to be registered, or that are by now: orphans are not told from them meanwhile."""
        self._expected += more

    @property
    def are_all_known(self) -> bool:
        """Whether each child that is not registered is an orphan."""
        return not self._expected

    def pids(self) -> set[int]:
        """Return the pids of all registered children."""
        return set(self._children)

    def reap(self) -> None:
        """Reap every dead child; to be called on SIGCHLD.

        Exceptions of owners are raised once all are reaped, as an ExceptionGroup.
        """
        errors: list[Exception] = []
        while (pid := self._next_dead()) is not None:
            try:
                self._handle_death(pid)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("cannot handle the end of children", errors)

    def finish(self, pid: int) -> None:
        """Reap a child that its owner has kept unreaped, and others that it has hidden from `waitid`."""
        self._staying.discard(pid)
        try:
            self._reap(pid)
        finally:
            self.reap()

    def _handle_death(self, pid: int) -> None:
        child = self._children.get(pid)
        stays = False
        try:
            if child is None:
                self.on_dead_orphan(pid)
            else:
                stays = child.died(pid) is False
        finally:
            if stays:
                self._staying.add(pid)
            else:
                self._reap(pid)

    def _reap(self, pid: int) -> None:
        """Reap a child in any case: an unreaped one would be found again for ever.

        Its owner is told in any case, because its pid may belong to another process from now on.
        """
        child = self._children.pop(pid, None)
        self.orphans.reaped(pid)
        exit = _wait(pid)
        if child is not None:
            child.reaped(pid, exit)
        else:
            self._on_orphan(pid, exit)

    @staticmethod
    def any_left() -> bool:
        """Whether spawnd has any child at all, alive or dead, registered or not."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _next_dead(self) -> int | None:
        """Return the pid of a dead child that is to be reaped, or None.

        The kernel returns the same dead child again and again. While that child is kept, or is not known yet, all
        others are checked by pid, and orphans wait.
        """
        pid = _dead(os.P_ALL)
        if pid is None or (pid not in self._staying and (self.are_all_known or pid in self._children)):
            return pid
        return next((pid for pid in self._children if pid not in self._staying and _dead(os.P_PID, pid)), None)


def _dead(kind: int, number: int = 0) -> int | None:
    """Return the pid of a dead child of this kind, which stays unreaped; None without one."""
    try:
        found = os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def _wait(pid: int) -> Exit:
    found = os.waitid(os.P_PID, pid, os.WEXITED)
    if found is None:
        raise RuntimeError(f"process {pid} was dead and is not")
    if found.si_code == os.CLD_EXITED:
        return Exit(status=found.si_status)
    return Exit(signum=found.si_status, core=found.si_code == os.CLD_DUMPED)


class AnsweringChild:
    """A child that answers; calls `done` once, from the loop, after `limit` seconds at the latest.

    The child has the descriptors `kept`. Owns the pipe. Raises OSError, and then `done` is not called. A child that
    was late and is killed may stay for as long as a system call of it takes, until it `is_gone`. A child that dies
    before it has answered is made again, unless it has descriptors, which may be others by then. The answer is empty if
    that does not help.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        answer: Answer,
        limit: float,
        done: Done,
        kept: Collection[int] = (),
    ) -> None:
        self._loop = loop
        self._children = children
        self._answer = answer
        self._kept = kept
        self._done = done
        self._tries_left = 1 if kept else TRIES
        self._start()
        self._timer = loop.limit_later(limit, self._too_long)

    def _start(self) -> None:
        self._tries_left -= 1
        self._data = b""
        self.is_gone = False
        self._pid, self._fd = start_child(self._answer, self._kept)
        self._children.register(self._pid, self)
        try:
            self._loop.watch(self._fd, select.EPOLLIN, lambda _events: self._receive())
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def _receive(self) -> None:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, PIECE)
            except BlockingIOError:
                return
            self._data += data
            if not data:
                self._ended()
                return

    def _ended(self) -> None:
        self._close()
        if self._data.endswith(WHOLE):
            self._end(self._data.removesuffix(WHOLE), in_time=True)
            return
        if self._tries_left > 0:
            with suppress(OSError):
                self._start()
                return
        self._end(b"", in_time=True)

    def give_up(self) -> None:
        """End the child, and `done` at once, if that has not been called."""
        if self._fd >= 0:
            self._too_long()

    def _too_long(self) -> None:
        """Kill the child without waiting for it: it may be in a system call that never ends."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._close()
        self._end(self._data, in_time=False)

    def _close(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _end(self, data: bytes, in_time: bool) -> None:
        self._timer.cancel()
        self._done(data, in_time)

    # as a child

    def died(self, pid: int) -> None:
        if pid == self._pid:
            self._receive()

    def reaped(self, pid: int, exit: Exit) -> None:
        if pid != self._pid:  # another one has taken its place
            return
        self.is_gone = True
        if self._fd >= 0:
            self._ended()


@contextmanager
def watched_pipe(loop: Loop, readable: Callable[[int], None]) -> Iterator[tuple[int, int]]:
    """Give a pipe for the output of a child that is forked inside: the end that `loop` watches, and the child's end.

    The first is non-blocking and the caller's afterwards, unless an error comes out. Raises OSError.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(read_end, False)
        loop.watch(read_end, select.EPOLLIN, readable)
        yield read_end, write_end
    except BaseException:
        loop.unwatch(read_end)
        os.close(read_end)
        raise
    finally:
        os.close(write_end)


def start_child(answer: Answer, kept: Collection[int] = ()) -> tuple[int, int]:
    """Have a child answer; return its pid and the non-blocking end of the pipe from which to read the answer.

    The child has no other descriptor but those `kept`, so a child that hangs holds nothing else up. `WHOLE` is at the
    end of the answer, unless the child was killed before. The caller owns the descriptor, and registers the child
    before it can be reaped. Raises OSError.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = fork(lambda: _be_child(write_end, answer, kept), [write_end, *kept])
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return pid, read_end


def _be_child(fd: int, answer: Answer, kept: Collection[int]) -> None:
    first = 0
    for each in sorted({fd, *kept}):
        if each > first:
            close_range(first, each - 1)
        first = each + 1
    close_range(first, LAST_DESCRIPTOR)
    os.set_blocking(fd, True)
    default_signals()
    end = os.dup(fd)
    answer(fd)
    os.write(end, WHOLE)
    os.close(end)  # the exit may have to wait for a thread, the reader of the pipe must not
    os._exit(0)
