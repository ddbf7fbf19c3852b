"""The search for the daemon of a service whose first process has ended because it went into the background."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from functools import partial

from supervisor.definitions.service import Service
from supervisor.errors import StepError
from supervisor.lifecycle.wording import misled, several, unread
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.children import AnsweringChild, Children
from supervisor.process.files import rights_of
from supervisor.process.marks import may_name, name_of, parse_pid_file, tell_pid_file, tops
from supervisor.process.pids import Process

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2  # seconds between two looks; the pause doubles each time
SETTLED = 0.1  # seconds without a change until the only process, or the lack of any, counts: a daemon may fork twice
READ_LIMIT = 1.0  # seconds for a child to read a pid file
NO_ANSWER = "its file system does not answer"

Named = tuple[int, bool] | OSError  # the number in a pid file, and whether root alone may write to the file


class PidFiles:
    """Reads pid files in children, as a file system may never answer: one child at a time for each service."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop = loop
        self._children = children
        self._reading: dict[tuple[str, str], AnsweringChild] = {}  # by service and path; those that hang stay

    def read(self, service: Service, done: Callable[[Named], None]) -> None:
        """Read the pid file of a service; the loop calls `done` once, after `READ_LIMIT` at the latest."""
        key = service.name, service.pid_file
        before = self._reading.get(key)
        if before is not None and not before.is_gone:
            self._loop.call_soon(partial(done, TimeoutError(errno.ETIMEDOUT, NO_ANSWER)))
            return

        def answered(answer: bytes, in_time: bool) -> None:
            if in_time:
                del self._reading[key]
            done(_named(answer, in_time))

        rights = rights_of(service)
        tell = partial(tell_pid_file, path=service.pid_file, rights=rights)
        try:
            self._reading[key] = AnsweringChild(self._loop, self._children, tell, READ_LIMIT, answered)
        except OSError as error:
            self._loop.call_soon(partial(done, error))


def _named(answer: bytes, in_time: bool) -> Named:
    try:
        return parse_pid_file(answer) if in_time else TimeoutError(errno.ETIMEDOUT, NO_ANSWER)
    except OSError as error:
        return error


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
        pid_files: PidFiles,
        service: Service,
        prepare: Callable[[Callable[[], None]], None],
        find: Callable[[], Mapping[int, Process]],
        find_unproven: Callable[[], Mapping[int, Process]],
        done: Callable[[Process | None], None],
        give_up: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pid_files = pid_files
        self._service = service
        self._named: Named | None = None  # by the pid file, when it was last read
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
        if self._service.pid_file:
            self._pid_files.read(self._service, self._take_named)
        else:
            self._prepare(self._look)

    def _take_named(self, named: Named) -> None:
        self._named = named
        if not self._is_over:
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
        if self._named is not None:
            if processes or unproven:
                self._only = None
            return self._find_named(self._named, processes, unproven)
        candidates = tops(processes)
        if len(candidates) != 1:
            self.undecided = several(len(candidates)) if candidates else ""
            if candidates:
                self._only = None
                self._tell()
            return None
        return candidates[0] if self._is_settled((candidates[0].pid, candidates[0].started)) else None

    def _find_named(
        self, named: Named, processes: Mapping[int, Process], unproven: Mapping[int, Process]
    ) -> Process | None:
        """Return the process of the service that its pid file names."""
        path = self._service.pid_file
        if isinstance(named, OSError):
            self.undecided = unread(path, named.strerror or str(named))
            if named.errno != errno.ENOENT:  # else the file is not written yet
                self._tell()
            return None
        pid, is_roots = named
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
