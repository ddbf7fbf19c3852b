"""Trying the installed version before this process becomes it.

A child executes it with copies of all that it would get.  It makes everything of it, lets a
second go by and does nothing; what it says is why it could not.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Sequence

import prctl

from supervisor.loop.loop import Loop
from supervisor.process.children import Children, Exit
from supervisor.process.fork import default_signals, fork
from supervisor.process.memfd import memfd

TIME_LIMIT = 30.0  # seconds
MAX_OUTPUT = 1 << 16  # bytes

Done = Callable[[list[str]], None]


class Trial:
    """Runs `command` with the number of a memfd that holds `state` as its last argument.

    `fds` are inherited under their numbers.  `done` is called once, with nothing or with
    what the child said of its failure.
    """

    def __init__(
        self, loop: Loop, children: Children, command: Sequence[str], state: bytes, fds: Iterable[int], done: Done
    ) -> None:
        self._loop = loop
        self._done = done
        self._output = bytearray()
        self._failure = ""
        state_fd = memfd("spawnd-trial", state)
        try:
            self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
            try:
                os.set_blocking(self._read_fd, False)
                loop.watch(self._read_fd, select.EPOLLIN, lambda _events: self._read())
                spawnd = os.getpid()
                self._pid = fork(lambda: _execute(spawnd, command, state_fd, fds, write_fd))
            except BaseException:
                loop.unwatch(self._read_fd)
                os.close(self._read_fd)
                raise
            finally:
                os.close(write_fd)
        finally:
            os.close(state_fd)
        children.register(self._pid, self)
        self._timer = loop.call_later(TIME_LIMIT, self._too_long)

    def _read(self) -> None:
        try:
            while data := os.read(self._read_fd, 4096):
                self._output += data
                del self._output[:-MAX_OUTPUT]
        except BlockingIOError:
            return
        self._loop.unwatch(self._read_fd)

    def _too_long(self) -> None:
        self._failure = f"not ready after {TIME_LIMIT:g} s"
        os.kill(self._pid, signal.SIGKILL)

    def died(self, pid: int) -> None:
        self._read()

    def reaped(self, pid: int, exit: Exit) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._read_fd)
        os.close(self._read_fd)
        if exit == Exit():
            self._done([])
        else:
            said = self._output.decode(errors="replace").splitlines()
            self._done([*said, self._failure or exit.describe()])


def _execute(spawnd: int, command: Sequence[str], state_fd: int, fds: Iterable[int], write_fd: int) -> None:
    # one that outlives spawnd would keep its lock, and nobody would end one that hangs
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != spawnd:
        return
    default_signals()
    for target in (1, 2):
        os.dup2(write_fd, target)
    for fd in (state_fd, *fds):
        os.set_inheritable(fd, True)
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    os.execve(command[0], [*command, str(state_fd)], environment)  # noqa: S606  # our own program
