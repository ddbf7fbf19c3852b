"""The search for the daemon of a service whose first process has ended because it went into the background."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.lifecycle.wording import misled, several, unread
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.files import rights_of
from supervisor.process.marks import may_name, name_of, read_pid_file, tops
from supervisor.process.pids import Process

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2  # seconds between two looks; the pause doubles each time
SETTLED = 0.1  # seconds without a change until the only process, or the lack of any, counts: a daemon may fork twice


class Background:
    """Search for the daemon; calls `done` once with the process, or with None if no process is left.

    `prepare` calls its argument once `find` can return the living processes of the service by pid.
    `find_unproven` returns processes that count as the service's own if a trusted `pid_file` names them.
    Without a `pid_file`, the daemon is the only process whose parent is not among the processes found.
    `start_timeout` limits the search; `kill` calls `give_up` instead of `done`. So does `stop`, unless only
    the `pid_file` can prove that a process is the service's.
    """

    def __init__(
        self,
        loop: Loop,
        service: Service,
        prepare: Callable[[Callable[[], None]], None],
        find: Callable[[], Mapping[int, Process]],
        find_unproven: Callable[[], Mapping[int, Process]],
        done: Callable[[Process | None], None],
        give_up: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._service = service
        self._prepare = prepare
        self._find = find
        self._find_unproven = find_unproven
        self._done = done
        self._give_up = give_up
        self._pause = FIRST_PAUSE
        # pid and start time of the only process, and since when
        self._only: tuple[tuple[int, int] | None, float] | None = None
        self._told = False
        self.undecided = ""  # why the last look chose no process
        self._is_over = False
        self._is_unwanted = False
        self._is_looking = False
        self._timer: Timer = loop.call_later(0, self._begin)

    def kill(self) -> None:
        """Give up the search."""
        self._timer.cancel()
        self._is_over = True
        self._give_up()

    def stop(self) -> None:
        """Give up after one more look; a process that only the `pid_file` can prove is waited for."""
        self._is_unwanted = True
        if not self._is_looking:
            self._timer.cancel()
            self._begin()

    def _begin(self) -> None:
        self._is_looking = True
        self._prepare(self._look)

    def _look(self) -> None:
        if self._is_over:
            return
        self._is_looking = False
        try:
            processes = self._find()
            unproven = self._find_unproven() if self._service.pid_file else {}
        except (StepError, OSError) as error:
            log.warning("%s: cannot look for its processes, trying again: %s", self._service.name, error)
            self._look_later()
            return
        if self._is_unwanted and (processes or not unproven):
            self.kill()
            return
        found = self._choose(processes, unproven)
        if found is not None or (not processes and not unproven and self._is_settled(None)):
            self._is_over = True
            self._done(found)
            return
        self._look_later()

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._begin)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _choose(self, processes: Mapping[int, Process], unproven: Mapping[int, Process]) -> Process | None:
        if self._service.pid_file:
            if processes or unproven:
                self._only = None
            return self._named(self._service.pid_file, processes, unproven)
        candidates = tops(processes)
        if len(candidates) != 1:
            self.undecided = several(len(candidates)) if candidates else ""
            if candidates:
                self._only = None
                self._tell()
            return None
        return candidates[0] if self._is_settled((candidates[0].pid, candidates[0].started)) else None

    def _named(
        self, path: str, processes: Mapping[int, Process], unproven: Mapping[int, Process]
    ) -> Process | None:
        """Return the process of the service that its pid file names."""
        try:
            pid, is_roots = read_pid_file(path, rights_of(self._service))
        except OSError as error:
            self.undecided = unread(path, error.strerror or str(error))
            if error.errno != errno.ENOENT:  # else the file is not written yet
                self._tell()
            return None
        found = processes.get(pid)
        if found is None and pid in unproven and may_name(self._service, pid, is_roots=is_roots):
            found = unproven[pid]
        if found is None:
            self.undecided = misled(path, pid, name_of(pid))
            self._tell()
        return found if found is not None and found.started >= 0 else None

    def _is_settled(self, only: tuple[int, int] | None) -> bool:
        """Whether `only` has been the only process for a while; None stands for no process."""
        now = self._loop.clock()
        if self._only is None or self._only[0] != only:
            self._only = only, now
        return now - self._only[1] >= SETTLED

    def _tell(self) -> None:
        if self._pause == LONGEST_PAUSE and not self._told:
            self._told = True
            log.warning("%s: %s", self._service.name, self.undecided)
