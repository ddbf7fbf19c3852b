"""Becoming the installed version of spawnd in the same process, with all that it has.

First a trial child; then, once nothing is being evaluated any more, `exec`.  Children stay
children, descriptors keep their numbers, signals that come meanwhile stay pending.  What
fails before the new program runs changes nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence

from supervisor.linux.signal_mask import block_all, set_mask
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.manager.supervisor import Supervisor
from supervisor.manager.trial import Trial
from supervisor.process.children import Children
from supervisor.process.memfd import memfd
from supervisor.state.file import Record, encode

RESUME = "--resume"
TRIAL = "--trial"

Done = Callable[[str], None]


class Reexec:
    """`records` gives all that there is to know now and the descriptors that go with it, `lock` one for the exec alone.

    `about_to(True)` is called right before the exec, `about_to(False)` where it has failed.
    `supervisor` is to be set before `begin`.
    """

    supervisor: Supervisor

    def __init__(
        self,
        loop: Loop,
        children: Children,
        program: Sequence[str],
        records: Callable[[], tuple[list[Record], Iterable[int]]],
        lock: Callable[[], int],
        about_to: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._children = children
        self._program = program
        self._records = records
        self._lock = lock
        self._about_to = about_to
        self._asked: list[Done] = []

    def begin(self, done: Done) -> None:
        """Try it, then do it.  `done` hears what is wrong; where nothing is, this process is another one by then."""
        self._asked.append(done)
        if len(self._asked) > 1:
            return
        if self.supervisor.ending:
            self._failed(["everything is being stopped"])
            return
        notice("trying %s before it is executed", self._program[-1])
        try:
            records, fds = self._records()
            Trial(
                self._loop,
                self._children,
                [*self._program, TRIAL, RESUME],
                b"".join(map(encode, records)),
                fds,
                self._tried,
            )
        except Exception as error:
            self._failed([f"{type(error).__name__}: {error}"])

    def _tried(self, said: list[str]) -> None:
        if said:
            self._failed(said)
        else:
            self.supervisor.hold(self._execute)

    def _hindrance(self) -> str:
        """Why this process cannot become another one now, '' where it can."""
        if self.supervisor.ending:
            return "everything is being stopped"
        if threading.active_count() > 1:
            # exec waits for every thread to end, and this one waits for a file system that may never answer
            return "a file that a service had stored is still being closed"
        return ""

    def _failed(self, said: list[str]) -> None:
        for line in said[:-1]:
            log.error("trial: %s", line)
        asked, self._asked = self._asked, []
        problem = f"not executed anew: {' '.join(said[-2:])}"
        log.error("%s", problem)
        for done in asked:
            done(problem)

    def _execute(self) -> None:
        """Become the new program; comes back only where that fails."""
        if hindrance := self._hindrance():
            self.supervisor.release()
            self._failed([hindrance])
            return
        self._about_to(True)
        before = block_all()
        signals = self._loop.take_signals()
        fds: list[int] = []
        try:
            records, numbers = self._records()
            state = b"".join(map(encode, [*records, {"signals": signals}]))
            fds = [*numbers, self._lock(), memfd("spawnd-state", state)]
            for fd in fds:
                os.set_inheritable(fd, True)
            os.execv(self._program[0], [*self._program, RESUME, str(fds[-1])])  # noqa: S606  # our own program
        except Exception as error:
            for fd in fds:
                os.set_inheritable(fd, False)
            if fds:
                os.close(fds[-1])
            self._loop.give_signals(signals)
            set_mask(before)
            self._about_to(False)
            self.supervisor.release()
            self._failed([f"{type(error).__name__}: {error}"])
