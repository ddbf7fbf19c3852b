"""A closer for tests, whose children are reaped by the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import ClassVar

from supervisor.notify.receiver import Receiver
from supervisor.notify.safe_close import Closer, Origin
from supervisor.process.run import Run
from supervisor.process.survivor import Fetcher, SurvivorFiles


class Reaper:
    """Has functions called when children have been reaped, by `look` or `settle`; in the end by `settle_all`."""

    made: ClassVar[list[Reaper]] = []

    def __init__(self) -> None:
        self.made.append(self)
        self.children: dict[int, Callable[[], None]] = {}
        self.most = 0
        self.started = 0

    def __call__(self, pid: int, ended: Callable[[], None]) -> None:
        self.children[pid] = ended
        self.started += 1
        self.most = max(self.most, len(self.children))

    def look(self) -> bool:
        """Reap those that have ended; whether none is left."""
        for pid in list(self.children):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.children.pop(pid)()
        return not self.children

    def settle(self) -> None:
        """Wait for all, also for those that follow."""
        while self.children:
            pid = next(iter(self.children))
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
            self.children.pop(pid)()


def settle_all() -> None:
    """Leave no child of any reaper."""
    while Reaper.made:
        Reaper.made.pop().settle()


class Stopped:
    """A clock on which no timer rings."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, _delay: float, callback: Callable[[], None], /) -> Stopped:
        self.timers.append(callback)
        return self

    def cancel(self) -> None:
        self.timers.clear()


class PatientCloser(Closer):
    """A closer that waits for its children: what it has closed is closed for everybody."""

    def __init__(self) -> None:
        self.reaper = Reaper()
        super().__init__(Stopped(), self.reaper)

    def close(self, fds: Iterable[int], origin: Origin | None = None) -> None:
        super().close(fds, origin)
        self.reaper.settle()

    def release(self, fds: Sequence[int]) -> None:
        super().release(fds)
        self.reaper.settle()


def bind_receiver(path: object, uid: int | None = None, reaper: Reaper | None = None) -> Receiver:
    """A receiver for one test."""
    reaper = reaper if reaper is not None else Reaper()
    return Receiver.bind(str(path), os.geteuid() if uid is None else uid, PatientCloser(), reaper)


def fetcher_of_tests() -> Fetcher:
    """A fetcher with children that are reaped at once."""
    reaper = Reaper()

    def reap(pid: int, ended: Callable[[], None]) -> None:
        reaper(pid, ended)
        reaper.settle()

    return Fetcher(reap, PatientCloser())


def files_of(run: Run) -> SurvivorFiles:
    """The descriptors of a process, fetched by children that are reaped at once."""
    return SurvivorFiles(run, fetcher_of_tests(), PatientCloser())
