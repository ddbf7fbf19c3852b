"""A main process that an earlier spawnd left behind, and the descriptors that it still has.

It is nobody's child here.  A pidfd holds it, its start time says that it is the one that is meant, and pidfd_getfd(2),
in a child, gives back what spawnd had given it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from supervisor.linux.descriptors import Order, kcmp_files
from supervisor.linux.file_status import number_of_pidfd
from supervisor.linux.open_files import LONGEST_LOOK, PIPE, OpenFiles, identity, is_unique
from supervisor.linux.pipe_call import open_end
from supervisor.log.logger import log
from supervisor.notify.safe_close import Closer, WhenReaped
from supervisor.notify.untrusted import Seen, fetch_elsewhere, receive_descriptor
from supervisor.process.pids import read_process
from supervisor.process.run import Run

MOST_SAME = 16  # descriptors that only kcmp(2) tells apart and that are compared: each is got by a child


class Fetcher:
    """Fetches in a child, which looks first: the other process may change what is at a number at any time."""

    def __init__(self, when_reaped: WhenReaped, closer: Closer) -> None:
        self._when_reaped = when_reaped
        self._closer = closer

    def fetch(self, pidfd: int, number: int) -> int | None:
        """A duplicate of descriptor `number` of a process, the caller's.

        None where there is none that may be had: it is closed, of a file that others serve, or we may not, as not root.
        Raises OSError, EMFILE where there is no number for it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours:
            with theirs:
                try:
                    pid, seen = fetch_elsewhere(pidfd, [number], theirs.fileno())
                except OSError:
                    return None
            self._when_reaped(pid, _nothing)
            if seen is None or (seen[0] is not None and not self._may_have(seen[0])):
                self._closer.close([ours.detach()])  # with what may be in its queue
                return None
            if seen[0] is None:
                return None
            found = receive_descriptor(ours)
            if found is None:  # the kernel drops what it finds no number for, and the other process still has it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return found

    def _may_have(self, seen: Seen) -> bool:
        try:
            return self._closer.file_systems.have_all([seen])
        except OSError:  # there is no descriptor for the table of mounts
            return False


def _nothing() -> None:
    pass


def find_survivor(pid: int, started: int, number: int = 0) -> Run | None:
    """The process; None where it is gone, whoever may have its pid now.  The caller owns the run.

    `number` is what the kernel has called it (`linux/file_status.py`), 0 where that is not known.  A process that
    does not show when it was started is in doubt without it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    is_its = is_same(pidfd, pid, started, number)
    if is_its is False or has_ended(pidfd):
        os.close(pidfd)
        return None
    return Run(pid, started=started, pidfd=pidfd, in_doubt=is_its is None)


def is_same(pidfd: int, pid: int, started: int, number: int = 0) -> bool | None:
    """Whether a process that is held is the one that was started then; None where it does not show that."""
    known = number_of_pidfd(pidfd) if number else 0
    if known:
        return known == number
    process = read_process(pid)
    if process is None:
        return False
    return process.started == started if process.started >= 0 else None


def has_ended(pidfd: int) -> bool:
    """Whether no thread of the process is left; what `/proc` says is of its first one, which may end before others."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class SurvivorFiles:
    """The open descriptors of a surviving process.  `run` stays its owner's."""

    def __init__(self, run: Run, fetcher: Fetcher, closer: Closer) -> None:
        self.run = run
        self._fetcher = fetcher
        self._closer = closer
        self._files: OpenFiles | None = None

    def duplicate(self, wanted: str, likely: Iterable[int] = ()) -> int | None:
        """A duplicate of its descriptor with that identity, the caller's; None where none is found.

        It is looked for at the numbers `likely` first, and then among those that have been looked at, the first
        thousand at least: see `is_known`.
        """
        found = self._first_duplicate(likely, wanted)
        if found is not None:
            return found
        numbers = self._look().found.get(wanted, [])
        if is_unique(wanted):
            return self._first_duplicate(numbers, wanted)
        return self._duplicate_same(numbers, wanted) if self.is_known else None

    @property
    def is_known(self) -> bool:
        """Whether all that it holds has been looked at."""
        return self._files is not None and self._files.is_complete

    def look_on(self, most: int) -> None:
        """Look at some more of its descriptors."""
        self._look().look(most)

    def look_at_all(self) -> None:
        """Look at all of its descriptors, as far as that does not take too long: for a process of ours."""
        deadline = time.monotonic() + LONGEST_LOOK
        while not self._look().is_complete and time.monotonic() < deadline:
            self._look().look()

    def _look(self) -> OpenFiles:
        if self._files is None:
            self._files = OpenFiles(self.run.pid)
            self._files.look()
        return self._files

    def _first_duplicate(self, numbers: Iterable[int], wanted: str) -> int | None:
        duplicates = (self._duplicate(number, wanted) for number in numbers)
        return next((fd for fd in duplicates if fd is not None), None)

    def _duplicate_same(self, numbers: Sequence[int], wanted: str) -> int | None:
        """A duplicate where all these descriptors share one open file: better none than another one.

        The descriptors are compared as duplicates: a comparison of the other process's own may wait for it (an execve).
        """
        if len(numbers) > MOST_SAME:
            return None
        found = [fd for number in numbers if (fd := self._duplicate(number, wanted)) is not None]
        are_same = len(found) == len(numbers) and all(kcmp_files(found[0], fd) is Order.EQUAL for fd in found[1:])
        kept = found[:1] if are_same else []
        self._closer.close(found[len(kept) :])
        return kept[0] if kept else None

    def reading_end(self, number: int) -> int:
        """The other end, which does not block, of a pipe that it has to write to at `number`.

        -1 where it has none, or keeps the pipe locked.
        """
        writing_end = self._fetch(number, lambda name: name.startswith(PIPE))
        if writing_end is None:
            return -1
        try:
            return open_end(writing_end, os.O_RDONLY)
        except OSError:
            return -1
        finally:
            self._closer.close([writing_end])

    def _duplicate(self, number: int, wanted: str) -> int | None:
        return self._fetch(number, lambda name: name == wanted)

    def _fetch(self, number: int, is_wanted: Callable[[str], bool]) -> int | None:
        try:
            if not is_wanted(identity(number, self.run.pid)):
                return None
        except OSError:
            return None  # closed
        try:
            fd = self._fetcher.fetch(self.run.pidfd, number)
        except OSError as error:
            cause = error.strerror or str(error)
            log.error("cannot take over descriptor %d of process %d, which keeps it: %s", number, self.run.pid, cause)
            return None
        if fd is None:
            return None
        with suppress(OSError):  # the kernel cannot tell
            if is_wanted(identity(fd)):
                return fd
        self._closer.close([fd])  # another has its number since we looked
        return None
