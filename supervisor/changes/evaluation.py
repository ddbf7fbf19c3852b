"""Evaluating the definition files in a child: Lua and look-ups of users never run in spawnd itself.

One evaluation runs at a time, for all clients that asked before it began.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from errno import ETIMEDOUT
from functools import partial
from typing import TYPE_CHECKING

from supervisor.definitions.report import NOTHING, ReportReader
from supervisor.definitions.service import Definitions, KeptFile, Service
from supervisor.errors import DefinitionsError
from supervisor.linux.descriptors import close_range
from supervisor.log.logger import close_inherited_log
from supervisor.loop.loop import Loop
from supervisor.process.children import Children, Exit, watched_pipe
from supervisor.process.fork import default_signals, fork

if TYPE_CHECKING:
    from supervisor.manager.inspection import Sights

TIME_LIMIT = 30.0  # seconds for all files, on a host that may be busy booting; beyond that, a name service hangs
# Seconds of CPU time for the Lua code of a file. Beyond that it is an endless loop, and the child names its line.
CHILD_TIME_LIMIT = 4.5
OVERTIME = f"took longer than {CHILD_TIME_LIMIT:g} s; an endless loop, maybe in one call of string.find or the like?"
LOOK_LIMIT = 5.0  # seconds for the search for programs; beyond that, a file system hangs
NOT_LOOKED = f"cannot look for programs: no answer from a file system within {LOOK_LIMIT:g} s"
MAX_REPORT = 32 * 1024 * 1024
CHUNK = 1 << 15  # bytes per read of the report: some milliseconds
# bytes that an evaluation may map beyond spawnd's: each Lua state has 64 MiB, one after the other
ADDRESS_SPACE = 512 * 1024 * 1024
LAST_FD = 2**32 - 1
MOST_HANGING = 8  # children of evaluations that hang; the next one may find the definitions elsewhere
MOST_SEARCHING = 8  # children that hang in the search for programs
Done = Callable[[Definitions | DefinitionsError], None]


class Evaluation:
    """One evaluation of `paths`; calls `done` once, from the loop. Owns its end of the pipe.

    `digest` adds a digest to the definitions, `programs` a search for programs; both take time. A child that takes too
    long is killed and left behind, as a system call may never end; in the search, that costs only its notices. `hangs`
    is whether such a child, which had not yet read the definitions, is still there, and `searches` whether one is
    that had. `before` has the services in force
    and the files that need not be evaluated again. The child has them by the fork, and this process keeps the objects
    that it has.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        paths: Sequence[str],
        done: Done,
        *,
        digest: bool = False,
        programs: bool = False,
        before: Definitions = NOTHING,
    ) -> None:
        self._loop = loop
        self._done = done
        self._programs = programs
        self._report = ReportReader(before)
        self._size = 0
        self.hangs = self.searches = False
        with watched_pipe(loop, self._on_readable) as (self._read_fd, write_fd):
            self._pid = fork(lambda: _evaluate(paths, write_fd, digest, programs, before), [write_fd])
        children.register(self._pid, self)
        self._timer = loop.limit_later(TIME_LIMIT, self._too_long)

    def cancel(self) -> None:
        """Kill the child, if there still is one: its result is not needed any more."""
        if self._read_fd >= 0:
            os.kill(self._pid, signal.SIGKILL)

    def _on_readable(self, _events: int) -> None:
        self._read_some()

    def _read_some(self) -> bool:
        """Read a piece of the report and no more, to give way to other events; return False without data."""
        try:
            data = os.read(self._read_fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.unwatch(self._read_fd)
            return False
        self._size += len(data)
        if self._size > MAX_REPORT:
            self._give_up(f"definitions are larger than {MAX_REPORT >> 20} MiB")
            return False
        was_complete = self._report.is_complete
        self._report.feed(data)
        if self._programs and self._report.is_complete and not was_complete:
            self._timer.cancel()
            self._timer = self._loop.limit_later(LOOK_LIMIT, self._search_too_long)
        return True

    def _too_long(self) -> None:
        self.hangs = True
        self._give_up(f"took longer than {TIME_LIMIT:g} s")

    def _search_too_long(self) -> None:
        self.searches = True
        self._give_up("")

    def _give_up(self, failure: str) -> None:
        """Kill the child, and do not wait for it."""
        os.kill(self._pid, signal.SIGKILL)  # not reaped yet: `reaped` would have ended the timer and the watch
        self._end(failure, final=False)

    def died(self, pid: int) -> None:
        while self._read_fd >= 0 and self._read_some():
            pass

    def reaped(self, pid: int, exit: Exit) -> None:
        self.hangs = self.searches = False
        if self._read_fd < 0:
            return  # it was left behind
        overtime = exit.signum == signal.SIGPROF
        ended = OVERTIME if overtime else "" if exit == Exit() else f"evaluation {exit.describe()}"
        self._end(ended, final=overtime)

    def _end(self, failure: str, *, final: bool) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._read_fd)
        os.close(self._read_fd)
        self._read_fd = -1
        report, self._report = self._report, ReportReader()  # the owner may keep this object for good
        self._done(self._result(report, failure, final=final))

    def _result(self, report: ReportReader, failure: str, *, final: bool) -> Definitions | DefinitionsError:
        try:
            found = report.definitions(failure, final=final)
        except DefinitionsError as error:
            return error
        if not self._programs or report.looked:
            return found
        missing = f"cannot look for programs: {failure}" if failure else NOT_LOOKED
        return replace(found, notices=(*found.notices, missing))


def _evaluate(paths: Sequence[str], write_fd: int, digest: bool, programs: bool, before: Definitions) -> None:
    default_signals()
    close_inherited_log()
    # The child runs code from a file: it keeps only stderr and the pipe of spawnd's descriptors.
    os.dup2(write_fd, 3, inheritable=False)
    close_range(4, LAST_FD)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_address_space()
    from supervisor.definitions.evaluate import write_report

    root = os.geteuid() == 0
    limit = CHILD_TIME_LIMIT
    write_report(paths, 3, deadline_s=limit, root=root, digest=digest, programs=programs, before=before)
    os._exit(0)


def _limit_address_space() -> None:
    """Bound the memory of Lua code. The limit includes what the fork has inherited, however large spawnd is."""
    with open("/proc/self/statm", encoding="ascii") as file:
        inherited = int(file.read().split()[0]) * resource.getpagesize()
    limit = inherited + ADDRESS_SPACE
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Evaluations:
    """Requests for evaluations of `paths`, the definition files and folders.

    `services` returns those in force, `kept` are the files that need not be evaluated again unless they change.
    `inspect` inspects the paths of the units' open files at the same time; `sights` is its last result.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        paths: Sequence[str],
        inspect: Callable[[Callable[[Sights], None]], object] = lambda done: done({}),
        services: Callable[[], dict[str, Service]] = dict,
    ) -> None:
        self._loop = loop
        self._children = children
        self._paths = paths
        self._asked: list[Done] = []
        self._told: list[Done] = []
        self._quiet: Callable[[], None] | None = None
        self._inspect = inspect
        self._is_looking = False
        self._left: list[Evaluation] = []  # that hang, with the present one
        self._result: Definitions | DefinitionsError | None = None
        self._services = services
        self.sights: Sights = {}
        self.kept: dict[str, KeptFile] = {}

    def ask(self, done: Done) -> None:
        """Call `done` with the definitions in the files now, or with their problems; once for repeated requests."""
        if done not in self._asked:
            self._asked.append(done)
            self._next()

    def is_awaited_by(self, done: Done) -> bool:
        """Whether this request is still waiting for the end of an evaluation."""
        return done in self._asked or done in self._told

    def hold(self, quiet: Callable[[], None]) -> None:
        """Begin no more evaluations until `release`; call back when all results of the present one are delivered."""
        self._quiet = quiet
        self._tell_quiet()

    def release(self) -> None:
        """Go on with requests that were made meanwhile."""
        self._quiet = None
        self._next()

    def _tell_quiet(self) -> None:
        if self._quiet is not None and not self._told:
            self._loop.call_soon(self._quiet)  # after results that are delivered in turns before this one

    def _next(self) -> None:
        if self._told or not self._asked or self._quiet is not None:
            return
        self._told, self._asked = self._asked, []
        self._is_looking = True
        self._inspect(self._looked)
        before = Definitions(self._services(), kept=self.kept)
        programs = sum(each.searches for each in self._left) < MOST_SEARCHING
        done = self._evaluated if programs else self._evaluated_alone
        try:
            if sum(each.hangs for each in self._left) >= MOST_HANGING:
                raise TimeoutError(ETIMEDOUT, f"a file system has not answered {MOST_HANGING} earlier evaluations")
            self._left.append(
                Evaluation(self._loop, self._children, self._paths, done, digest=True, programs=programs, before=before)
            )
        except OSError as error:
            failure = DefinitionsError([f"cannot evaluate definitions: {error.strerror}"])
            self._loop.call_soon(partial(self._evaluated, failure))

    def _looked(self, sights: Sights) -> None:
        self.sights = sights
        self._is_looking = False
        self._tell()

    def _evaluated_alone(self, result: Definitions | DefinitionsError) -> None:
        """Take a result without a search for programs."""
        if isinstance(result, Definitions):
            why = f"cannot look for programs: a file system has not answered {MOST_SEARCHING} earlier searches"
            result = replace(result, notices=(*result.notices, why))
        self._evaluated(result)

    def _evaluated(self, result: Definitions | DefinitionsError) -> None:
        self._left = [evaluation for evaluation in self._left if evaluation.hangs or evaluation.searches]
        if isinstance(result, Definitions):
            self.kept = result.kept
        self._result = result
        self._tell()

    def _tell(self) -> None:
        """Deliver the results once both are there, each in its own turn, so that an error affects only one caller."""
        if self._is_looking or self._result is None:
            return
        result, self._result = self._result, None
        told, self._told = self._told, []
        for done in told:
            self._loop.call_soon(partial(done, result))
        self._tell_quiet()
        self._next()
