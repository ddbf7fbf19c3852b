"""Reading ends of pipes to processes of services, which may hold the lock of a pipe for as long as they like.

A pipe at its end is closed here; children do everything else (`linux/pipe_call.py`).
"""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from supervisor.linux.pipe_call import PATIENCE_MS, SLOW, PipeCall, is_at_end, start_close, start_read
from supervisor.loop.loop import Loop
from supervisor.notify.safe_close import Closer

MOST_HELD = 2  # pipes of a service for which children wait; its other pipes are not read meanwhile
MOST_KILLED = 3  # children for the last read of a pipe that may be killed, as where memory is short
LAST = 2.0  # seconds for the last reads of an ended process, whose pipe another process may have locked
PAUSE = 0.1  # seconds until the next attempt if no child could be forked, or if it was killed
# After a turn, a pipe rests for this many times as long as the turn took, so that a service that writes all the time
# has a tenth of the time of spawnd. The rest is limited, in seconds.
REST, LONGEST_REST = 9, 0.1


@dataclass(slots=True, eq=False, repr=False)
class _End:
    """A reading end. The child of `call` has not ended yet; the child of `late` has, and its result comes next.

    `is_last`: the writing process has ended, and the content of the pipe is read now or never. `is_unread`: the last
    read has had no result. `rests_until` is a time of the loop.
    """

    name: str
    callback: Callable[[], None]
    call: PipeCall | None = None
    late: PipeCall | None = None
    is_closed: bool = False
    is_watched: bool = True
    is_last: bool = False
    is_unread: bool = False
    waiting: _LastReads | None = None
    patience: int = PATIENCE_MS
    rests_until: float = 0.0


class _LastReads:
    """Calls `done` once the last reads of these ends have had their results, or after a time limit."""

    def __init__(self, loop: Loop, ends: Iterable[_End], done: Callable[[], None]) -> None:
        self._ends = list(ends)
        self._done: Callable[[], None] | None = done
        self._timer = loop.limit_later(LAST, self._end)
        for end in self._ends:
            end.waiting = self

    def look(self) -> None:
        if not any(end.is_unread for end in self._ends):
            self._end()

    def _end(self) -> None:
        self._timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done()


class Pipes:
    """Watch over reading ends; their owners close them here."""

    def __init__(self, loop: Loop, closer: Closer) -> None:
        self._loop = loop
        self._closer = closer
        self._ends: dict[int, _End] = {}
        self._held: Counter[str] = Counter()  # by service: the number of its pipes for which children wait

    def watch(self, fd: int, name: str, callback: Callable[[], None]) -> None:
        """Call back while the pipe has something to `read`; `name` is that of its service."""
        self._ends[fd] = end = _End(name, callback)
        self._loop.watch(fd, select.EPOLLIN, lambda _events: self._take_turn(fd, end))

    def _take_turn(self, fd: int, end: _End) -> None:
        begun = self._loop.clock()
        try:
            end.callback()
        finally:
            if self._ends.get(fd) is end:
                self._rest(fd, end, min((self._loop.clock() - begun) * REST, LONGEST_REST))
            if end.waiting is not None:
                end.waiting.look()

    def _rest(self, fd: int, end: _End, seconds: float) -> None:
        self._ignore(fd, end)
        end.rests_until = max(end.rests_until, self._loop.clock() + seconds)
        self._loop.call_at(end.rests_until, lambda: self._hear(fd, end))

    def read(self, fd: int, size: int) -> bytes:
        """Read at most `size` bytes from a watched pipe; nothing at its end, or if its content is unreadable.

        Raises BlockingIOError if the pipe is empty, or if a process holds its lock.
        """
        end = self._ends[fd]
        end.is_unread = True
        call = self._take_ended(end)
        for _ in range(1 + (MOST_KILLED if end.is_last else 0)):
            if call is None:
                call = self._start(fd, end, size)
            if call is None or not call.was_killed:
                end.is_unread = False
                return b"" if call is None else self._result(call)
            call = None
        self._rest(fd, end, PAUSE)
        raise BlockingIOError

    def _take_ended(self, end: _End) -> PipeCall | None:
        """Return an earlier call whose child has ended, if its result is still to be taken."""
        call = end.late
        if call is None and end.is_last and end.call is not None and end.call.has_ended(PATIENCE_MS):
            call = end.call
            self._settle(end)
        end.late = None
        return call

    def _start(self, fd: int, end: _End, size: int) -> PipeCall | None:
        """Return a call whose child has ended, None at the end of the pipe. Raises BlockingIOError."""
        if end.call is None and is_at_end(fd):
            return None
        if end.call is not None or self._held[end.name] >= MOST_HELD:
            self._ignore(fd, end)
            raise BlockingIOError
        began = self._loop.clock()
        try:
            call = start_read(fd, size, end.patience)
        except OSError:
            self._rest(fd, end, PAUSE)
            raise BlockingIOError from None
        has_ended = call.has_ended(end.patience)
        if self._loop.clock() - began > SLOW and not end.is_last:
            end.patience = 0  # a service may delay the others only once
        if has_ended:
            return call
        end.call = call
        self._held[end.name] += 1
        self._ignore(fd, end)
        call.when_ended(self._loop, lambda: self._ended(fd, end, call))
        raise BlockingIOError

    def expect_end(self, fd: int) -> None:
        """Wait for children in the following reads: the process has ended, and the pipe is closed after `last_reads`.

        A child without CPU time is waited for. A child that waits for the lock of the pipe gets some 5 ms,
        once.
        """
        end = self._ends.get(fd)
        if end is not None:
            end.is_last, end.patience = True, PATIENCE_MS

    def last_reads(self, fds: Iterable[int], done: Callable[[], None]) -> bool:
        """Return False if the reads after `expect_end` have had their results.

        Otherwise return True, and call `done` once they have, in a later turn and within a time limit.
        """
        ends = [end for fd in fds if (end := self._ends.get(fd)) is not None and end.is_unread]
        if ends:
            _LastReads(self._loop, ends, done)
        return bool(ends)

    @staticmethod
    def _result(call: PipeCall) -> bytes:
        """Return the data that a child has read. Raises BlockingIOError."""
        try:
            return call.result()
        except BlockingIOError:
            raise
        except OSError:  # the pipe holds a page of a file whose server has withdrawn it
            return b""

    def close(self, fd: int) -> None:
        """Close a reading end, watched or not, without waiting for a process that holds its lock."""
        end = self._ends.pop(fd, None)
        self._loop.unwatch(fd)
        if end is not None:
            end.is_unread = False
        if end is not None and end.call is not None:
            end.is_closed = True
        elif is_at_end(fd):
            os.close(fd)
        elif end is None or self._held[end.name] >= MOST_HELD:
            self._closer.close([fd])
        else:
            self._close_in_child(fd, end)

    def _close_in_child(self, fd: int, end: _End) -> None:
        try:
            call = start_close(fd)
        except OSError:  # no child can be forked
            self._closer.close([fd])
            return
        if not call.has_ended():
            self._held[end.name] += 1
            call.when_ended(self._loop, lambda: self._let_go(end.name))

    def _ended(self, fd: int, end: _End, call: PipeCall) -> None:
        if end.call is not call:
            return  # its result was taken before the loop noticed its end
        if end.is_closed:
            end.call = None
            self.close(fd)
            self._let_go(end.name)
        else:
            end.late = call
            self._settle(end)
            self._hear(fd, end)

    def _settle(self, end: _End) -> None:
        """Go on after a child that has ended."""
        end.call = None
        self._let_go(end.name)

    def _let_go(self, name: str) -> None:
        """Read the other pipes of a service again, after one of its waiting children has ended."""
        self._held[name] -= 1
        if self._held[name] == 0:
            del self._held[name]
        for fd, end in list(self._ends.items()):
            if end.name == name and end.late is None:
                self._hear(fd, end)

    def _ignore(self, fd: int, end: _End) -> None:
        """Stop watching a pipe for now; the kernel would report the end of its last writer in each turn."""
        self._loop.unwatch(fd)
        end.is_watched = False

    def _hear(self, fd: int, end: _End) -> None:
        """Watch a pipe again unless it rests; a late result needs no event."""
        if self._ends.get(fd) is not end or end.call is not None or self._loop.clock() < end.rests_until:
            return
        if end.late is not None:
            self._take_turn(fd, end)
        elif not end.is_watched:
            self._loop.watch(fd, select.EPOLLIN, lambda _events: self._take_turn(fd, end))
            end.is_watched = True
