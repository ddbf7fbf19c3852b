"""A main process that an earlier spawnd left behind, and the descriptors that it still has.

It is nobody's child here.  A pidfd holds it, its start time says that it is the one that is
meant, and pidfd_getfd(2) gives back what spawnd had given it.
"""

from __future__ import annotations

import os
import select

from supervisor.linux.descriptors import pidfd_getfd
from supervisor.linux.open_files import PIPE, identity, is_unique, open_files
from supervisor.notify.foreign import close_foreign
from supervisor.process.leftovers import read_process
from supervisor.process.run import Run


def find_survivor(pid: int, started: int) -> Run | None:
    """The process; None where it is gone, whoever may have its pid now.  The caller owns the run."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    process = read_process(pid)
    if process is None or process.started != started or has_ended(pidfd):
        os.close(pidfd)
        return None
    return Run(pid, started=started, pidfd=pidfd)


def has_ended(pidfd: int) -> bool:
    """Whether no thread of the process is left; what `/proc` says is of its first one, which may end before others."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class Holder:
    """What a surviving process holds open.  `run` stays its owner's."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._numbers: dict[str, list[int]] | None = None

    def duplicate(self, wanted: str, likely: int = -1) -> int | None:
        """A duplicate of its descriptor with that identity, the caller's; None where it has none.

        It is looked for at the number `likely` first.
        """
        found = self._duplicate(likely, wanted) if likely >= 0 else None
        if found is None:
            if self._numbers is None:
                self._numbers = open_files(self._run.pid)
            numbers = self._numbers.get(wanted, [])
            if len(numbers) > 1 and not is_unique(wanted):
                return None  # better none than another one
            for number in numbers:
                found = self._duplicate(number, wanted)
                if found is not None:
                    break
        return found

    def reading_end(self, number: int) -> int:
        """The other end, which does not block, of a pipe that it has to write to at `number`; -1 where it has not."""
        try:
            writing_end = pidfd_getfd(self._run.pidfd, number)
        except OSError:
            return -1
        try:
            if not identity(writing_end).startswith(PIPE):
                return -1
            return os.open(f"/proc/self/fd/{writing_end}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1
        finally:
            close_foreign([writing_end])

    def _duplicate(self, number: int, wanted: str) -> int | None:
        try:
            if identity(number, self._run.pid) != wanted:
                return None
            fd = pidfd_getfd(self._run.pidfd, number)
        except OSError:
            return None  # closed, or we may not: not root
        if identity(fd) == wanted:
            return fd
        close_foreign([fd])  # another has its number since we looked
        return None
