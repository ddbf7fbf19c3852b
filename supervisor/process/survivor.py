"""A main process that an earlier spawnd left behind, and its open descriptors.

It is no child of this spawnd. A pidfd holds it, its start time identifies it, and pidfd_getfd(2), in a child,
returns the descriptors that spawnd gave to it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from supervisor.errors import is_shortage, suppress_but_shortage
from supervisor.linux.descriptors import Order, kcmp_files
from supervisor.linux.file_status import number_of_pidfd
from supervisor.linux.open_files import LONGEST_LOOK, PIPE, OpenFiles, identity, is_unique
from supervisor.linux.pipe_call import open_end
from supervisor.loop.loop import Loop
from supervisor.notify.safe_close import Closer, WhenReaped
from supervisor.notify.untrusted import MAX_DESCRIPTORS, Seen, fetch_elsewhere, receive_descriptors
from supervisor.process.pids import read_process
from supervisor.process.run import Run

DOUBT_PAUSE = 2.0  # seconds between two looks at a process in doubt
MOST_SAME = 16  # descriptors compared by kcmp(2), where nothing else tells them apart: each takes a child


class Fetcher:
    """Fetching of descriptors in a child, which inspects them first: the other process may change them at any time."""

    def __init__(self, when_reaped: WhenReaped, closer: Closer) -> None:
        self._when_reaped = when_reaped
        self._closer = closer

    def fetch(self, pidfd: int, number: int) -> int | None:
        """Return a duplicate of descriptor `number` of a process; the caller owns it.

        None if it cannot be had: it is closed, of a file that a user-space server provides, or off limits to
        an ordinary user. Raises OSError without room for it, with EMFILE if there is no free number.
        """
        sent, fds = self._have_sent([(pidfd, number)])
        if sent and not fds:  # the kernel drops a descriptor without a free number; the other process still has it
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return fds[0] if fds else None

    def fetch_ahead(self, likely: Sequence[Likely]) -> None:
        """Give processes duplicates of their likely descriptors, fetched by few children.

        Any descriptor that cannot be had now is left for `fetch`.
        """
        for first in range(0, len(likely), MAX_DESCRIPTORS):
            some = likely[first : first + MAX_DESCRIPTORS]
            try:
                sent, fds = self._have_sent([(each.files.run.pidfd, each.number) for each in some])
            except OSError:
                return
            others = []
            for (place, seen), fd in zip(sent, fds, strict=False):
                files, number, wanted = some[place]
                if seen.link == wanted or identity(fd) == wanted:  # the link of a socket is its identity
                    files.give(number, wanted, fd)
                else:
                    others.append(fd)
            self._closer.close(others)

    def _have_sent(self, wanted: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, Seen]], list[int]]:
        """Have a child send descriptors, given by pidfd and number; return those sent, with their places, and received.

        Fewer are received if there are no free numbers. None are sent if one must not be held. Raises OSError without
        room for the child, or for a look at the file systems.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours:
            with theirs:
                pid, seen = fetch_elsewhere(wanted, theirs.fileno())
            self._when_reaped(pid, _nothing)
            sent = [(place, one) for place, one in enumerate(seen or ()) if one is not None]
            may_have = False
            try:
                may_have = seen is not None and self._closer.file_systems.have_all([one for _place, one in sent])
            finally:
                if not may_have:
                    self._closer.close([ours.detach()])  # its queue may hold the duplicates
            return (sent, receive_descriptors(ours, len(wanted))) if sent and may_have else ([], [])


def _nothing() -> None:
    pass


def find_survivor(pid: int, started: int, number: int = 0) -> Run | None:
    """Return the process; None if it is gone, even if its pid is in use again. The caller owns the run.

    `number` is its number on pidfs (`linux/file_status.py`), 0 if unknown. Without it, a process that hides its
    start time is in doubt. Raises OSError without room to hold it, as it may live.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    is_its = is_same(pidfd, pid, started, number)
    if is_its is False or has_ended(pidfd):
        os.close(pidfd)
        return None
    return Run(pid, started=started, pidfd=pidfd, in_doubt=is_its is None)


def is_same(pidfd: int, pid: int, started: int, number: int = 0) -> bool | None:
    """Whether the held process is the one that started at `started`; None if it hides its start time."""
    known = number_of_pidfd(pidfd) if number else 0
    if known:
        return known == number
    process = read_process(pid)
    if process is None:
        return False
    return process.started == started if process.started >= 0 else None


def has_ended(pidfd: int) -> bool:
    """Whether no thread of the process is left; `/proc` tells of the first thread, which may end before others."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class Likely(NamedTuple):
    """A descriptor that a process probably still has at this number."""

    files: SurvivorFiles
    number: int
    identity: str


class SurvivorFiles:
    """The open descriptors of a surviving process. The caller still owns `run`.

    Owns the duplicates that were fetched ahead until they are wanted, or closed with `close`.
    """

    def __init__(self, run: Run, fetcher: Fetcher, closer: Closer) -> None:
        self.run = run
        self._fetcher = fetcher
        self._closer = closer
        self._files: OpenFiles | None = None
        self._ahead: dict[tuple[int, str], int] = {}  # by number and identity

    def give(self, number: int, name: str, fd: int) -> None:
        """Take over a duplicate of its descriptor `number` with this identity."""
        self._ahead[number, name] = fd

    def close(self) -> None:
        """Close duplicates that nobody wanted."""
        self._closer.close(self._ahead.values())
        self._ahead.clear()

    def duplicate(self, wanted: str, likely: Iterable[int] = ()) -> int | None:
        """Return a duplicate of its descriptor with this identity; the caller owns it. None if none is found.

        Raises OSError without room for it: the process still has it, and another try may succeed.
        Unless all its descriptors have been read, the numbers in `likely` are tried first; then those that have
        been read, at least the first thousand: see `is_known`.
        """
        likely = [number for number in likely if not self.is_known or (number, wanted) in self._ahead]
        found = self._first_duplicate(likely, wanted)
        if found is not None:
            return found
        numbers = self.numbers(wanted)
        if is_unique(wanted):
            return self._first_duplicate(numbers, wanted)
        return self._duplicate_same(numbers, wanted) if self.is_known else None

    def numbers(self, wanted: str) -> Sequence[int]:
        """Return the numbers of its descriptors with this identity, of those that have been read."""
        return self._look().found.get(wanted, [])

    @property
    def is_known(self) -> bool:
        """Whether all its descriptors have been read."""
        return self._files is not None and self._files.is_complete

    def look_on(self, most: int) -> None:
        """Read at most `most` more of its descriptors."""
        self._look().look(most)

    def look_at_all(self) -> None:
        """Read all its descriptors within a time limit; meant for our own processes."""
        deadline = time.monotonic() + LONGEST_LOOK
        while not self._look().is_complete and time.monotonic() < deadline:
            self._look().look()

    def _look(self) -> OpenFiles:
        if self._files is None:
            self._files = OpenFiles(self.run.pid)
            self._files.look()
        return self._files

    def _first_duplicate(self, numbers: Iterable[int], wanted: str) -> int | None:
        ordered = sorted(numbers, key=lambda number: (number, wanted) not in self._ahead)
        duplicates = (self._duplicate(number, wanted) for number in ordered)
        return next((fd for fd in duplicates if fd is not None), None)

    def _duplicate_same(self, numbers: Sequence[int], wanted: str) -> int | None:
        """Return a duplicate if all these descriptors share one open file; None otherwise, rather than a wrong one.

        Duplicates are compared, because comparing the process's own descriptors may wait for an execve of it.
        """
        if len(numbers) > MOST_SAME:
            return None
        found = [fd for number in numbers if (fd := self._duplicate(number, wanted)) is not None]
        are_same = len(found) == len(numbers) and all(kcmp_files(found[0], fd) is Order.EQUAL for fd in found[1:])
        kept = found[:1] if are_same else []
        self._closer.close(found[len(kept) :])
        return kept[0] if kept else None

    def reading_end(self, number: int) -> int:
        """Return the other end, which does not block, of a pipe that it writes to at `number`.

        -1 if it has none, or keeps the pipe locked. Raises OSError like `duplicate`.
        """
        writing_end = self._fetch(number, lambda name: name.startswith(PIPE))
        if writing_end is None:
            return -1
        try:
            with suppress_but_shortage():
                return open_end(writing_end, os.O_RDONLY)
            return -1
        finally:
            self._closer.close([writing_end])

    def _duplicate(self, number: int, wanted: str) -> int | None:
        ahead = self._ahead.pop((number, wanted), None)
        return self._fetch(number, lambda name: name == wanted) if ahead is None else ahead

    def _fetch(self, number: int, is_wanted: Callable[[str], bool]) -> int | None:
        has_it = False  # a descriptor that is closed
        with suppress_but_shortage():
            has_it = is_wanted(identity(number, self.run.pid))
        if not has_it:
            return None
        fd = self._fetcher.fetch(self.run.pidfd, number)
        if fd is None:
            return None
        with suppress(OSError):  # the kernel does not tell
            if is_wanted(identity(fd)):
                return fd
        self._closer.close([fd])  # the number was reused since it was read
        return None


class Doubt:
    """Repeated check whether a main process of an earlier spawnd is still the same process.

    Stops when the process ends or is identified. Calls `disproved` if its pid now belongs to another process.
    """

    def __init__(self, loop: Loop, run: Run, disproved: Callable[[], None]) -> None:
        self._loop = loop
        self._run = run
        self._disproved = disproved
        loop.call_later(DOUBT_PAUSE, self._look)

    def _look(self) -> None:
        run = self._run
        if run.pidfd < 0 or has_ended(run.pidfd):
            return  # its end is handled elsewhere
        is_its = is_same(run.pidfd, run.pid, run.started)
        if is_its is None:
            self._loop.call_later(DOUBT_PAUSE, self._look)
        elif is_its:
            run.be_sure()
        else:
            self._disproved()
