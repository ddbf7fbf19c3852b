"""Having systemd make a scope, without ever waiting for it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from supervisor.linux.descriptors import close_range
from supervisor.loop.loop import Loop
from supervisor.process.delegation import cgroup_of
from supervisor.process.fork import default_signals, fork
from supervisor.process.scope import LAST_FD

MAX_COMPLAINT = 4096  # bytes
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

Done = Callable[[int | None, str], None]


class ScopeRequest:
    """Runs `command`, which becomes the keeper of the scope `name`.

    Calls `done` once, from the loop: with the keeper's pid, or with None and what is wrong.  The
    process is known by a pidfd and is nobody's registered child: its end is the scope's matter, and
    it outlives spawnd.  Owns the pidfd and its end of the pipe.  Raises OSError: no process to be had.
    """

    def __init__(self, loop: Loop, name: str, command: tuple[str, ...], done: Done) -> None:
        self._loop = loop
        self._name = name
        self._done: Done | None = done
        self._complaint = bytearray()
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(read_end, False)
            self._pid = fork(lambda: _execute(command, write_end))
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._read_end = read_end
        self._pidfd = os.pidfd_open(self._pid)
        loop.watch(self._pidfd, select.EPOLLIN, lambda _events: self._ended())
        loop.watch(self._read_end, select.EPOLLIN, lambda _events: self._read())

    def cancel(self) -> None:
        """Nobody wants the scope any more: end the process, whatever it is by now."""
        if self._done is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._close()

    def _read(self) -> None:
        """Collect what it says; the end of that is the keeper, or the end of the process."""
        try:
            while data := os.read(self._read_end, MAX_COMPLAINT):
                self._complaint += data[: MAX_COMPLAINT - len(self._complaint)]
        except BlockingIOError:
            return
        self._loop.unwatch(self._read_end)
        if (cgroup_of(self._pid) or "").endswith(f"/{self._name}"):
            self._finish(self._pid, "")

    def _ended(self) -> None:
        self._read()
        if self._done is not None:
            lines = self._complaint.decode(errors="replace").splitlines()
            self._finish(None, "; ".join(lines) or "it ended without a word")

    def _finish(self, pid: int | None, problem: str) -> None:
        done = self._done
        self._close()
        if done is not None:
            done(pid, problem)

    def _close(self) -> None:
        self._done = None
        for fd in (self._read_end, self._pidfd):
            self._loop.unwatch(fd)
            os.close(fd)


def _execute(command: tuple[str, ...], write_end: int) -> None:
    os.setsid()  # an INT from the terminal is spawnd's alone
    default_signals()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(write_end, 2)
    close_range(3, LAST_FD)
    try:
        os.execve(command[0], command, ENVIRONMENT)  # noqa: S606  # no shell is the point
    except OSError as error:
        os.write(2, f"cannot execute {command[0]!r}: {error.strerror}".encode())
    os._exit(1)
