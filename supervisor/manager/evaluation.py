"""Evaluating the definition files in a child: Lua, look-ups of users and all, never in spawnd itself."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable, Sequence

from supervisor.definitions.report import ReportReader
from supervisor.definitions.service import Definitions
from supervisor.errors import DefinitionsError
from supervisor.linux.descriptors import close_range
from supervisor.loop.loop import Loop
from supervisor.process.children import Children, Exit
from supervisor.process.fork import default_signals, fork

TIME_LIMIT = 30.0  # seconds for all files, on a host that may be busy with its boot: more is a name service that hangs
# seconds of processor time for the Lua code of a file: more is an endless loop, and the child says on which line
CHILD_TIME_LIMIT = 4.5
OVERTIME = f"took longer than {CHILD_TIME_LIMIT:g} s in one function of a library, such as string.find"
MAX_REPORT = 32 * 1024 * 1024
CHUNK = 1 << 15  # bytes of the report that are taken at once: some milliseconds
ADDRESS_SPACE = 512 * 1024 * 1024  # bytes for everything: each Lua state has 64 MiB, one after the other
LAST_FD = 2**32 - 1

Done = Callable[[Definitions | DefinitionsError], None]


class Evaluation:
    """One evaluation of `paths`; calls `done` once, from the loop.  Owns its end of the pipe.

    With `digest` the definitions come with one, which takes a little longer.
    """

    def __init__(
        self, loop: Loop, children: Children, paths: Sequence[str], done: Done, *, digest: bool = False
    ) -> None:
        self._loop = loop
        self._done = done
        self._report = ReportReader()
        self._size = 0
        self._failure = ""
        self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._read_fd, False)
            loop.watch(self._read_fd, select.EPOLLIN, self._on_readable)
            self._pid = fork(lambda: _evaluate(paths, write_fd, digest))
        except BaseException:
            loop.unwatch(self._read_fd)
            os.close(self._read_fd)
            raise
        finally:
            os.close(write_fd)
        children.register(self._pid, self)
        self._timer = loop.call_later(TIME_LIMIT, self._too_long)

    def cancel(self) -> None:
        """Kill the child if there still is one: nobody waits for the result any more."""
        if self._read_fd >= 0:
            os.kill(self._pid, signal.SIGKILL)

    def _on_readable(self, _events: int) -> None:
        self._read_some()

    def _read_some(self) -> bool:
        """Take a piece of the report, and no more: others are to have their turn.  False where there is none."""
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
        self._report.feed(data)
        return True

    def _too_long(self) -> None:
        self._give_up(f"took longer than {TIME_LIMIT:g} s")

    def _give_up(self, failure: str) -> None:
        self._failure = self._failure or failure
        self._loop.unwatch(self._read_fd)
        os.kill(self._pid, signal.SIGKILL)  # not reaped yet: `reaped` would have ended the timer and the watch

    def died(self, pid: int) -> None:
        while not self._failure and self._read_some():
            pass

    def reaped(self, pid: int, exit: Exit) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._read_fd)
        os.close(self._read_fd)
        self._read_fd = -1
        overtime = exit.signum == signal.SIGPROF
        ended = OVERTIME if overtime else "" if exit == Exit() else f"evaluation {exit.describe()}"
        try:
            result: Definitions | DefinitionsError = self._report.definitions(self._failure or ended, final=overtime)
        except DefinitionsError as error:
            result = error
        self._done(result)


def _evaluate(paths: Sequence[str], write_fd: int, digest: bool) -> None:
    default_signals()
    # of spawnd's descriptors the child keeps its stderr and the pipe: what runs here came from a file
    os.dup2(write_fd, 3, inheritable=False)
    close_range(4, LAST_FD)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    from supervisor.definitions.evaluate import write_report

    write_report(paths, 3, deadline_s=CHILD_TIME_LIMIT, root=os.geteuid() == 0, digest=digest)
    os._exit(0)
