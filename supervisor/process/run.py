"""One process of a service, from its fork to its reaping.

Most are children of spawnd.  One that an earlier spawnd left behind is nobody's child here:
it is held by a pidfd, so that its pid is never mistaken for that of another.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.errors import StepError
from supervisor.process.answer import Answer
from supervisor.process.failure import read_failure
from supervisor.process.leftovers import kill_group

PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # <linux/pidfd.h>, Linux 6.9
READY_READS = 16  # of 4 KiB: what a pipe holds by default; who writes on and on keeps nobody waiting
# what would be undone at once by the CONT that lets a stopped process hear the others
_NO_CONT = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Role(StrEnum):
    """What a process is for: to be the service, its check command, or one of its functions, by its name."""

    MAIN = "main"
    CHECK = "check"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RELOAD = "reload"
    STATUS = "status"

    @property
    def is_function(self) -> bool:
        return self not in (Role.MAIN, Role.CHECK)


@dataclass(slots=True)
class Run:
    """A process that is not reaped yet, so that `pid` is its own, and so is its process group id.

    Owns our end of the pipe on which the child tells what step of its set-up failed and,
    with `ready = "fd"`, of the one on which it says that it is ready, and the pidfd of one
    that is no child of ours; -1: none.  `started` is its start time in clock ticks since boot,
    `netns` the network namespace that it was to be in by its definition, None where it said none.
    `answer` that of a function that has ended.
    """

    pid: int
    role: Role = Role.MAIN
    error_fd: int = -1
    ready_fd: int = -1
    failure: bytes = field(default=b"")
    started: int = 0
    pidfd: int = -1
    netns: tuple[int, int] | None = None
    answer: Answer | None = None

    def release(self) -> None:
        """Let the child go on and become the service: it is written down."""
        with suppress(OSError):  # it has ended already, and has said why
            os.write(self.error_fd, b"\n")

    def read_errors(self) -> bool:
        """Read what the set-up reports; True at its end: the program runs, or there is a failure to be told."""
        while True:
            try:
                data = os.read(self.error_fd, 4096)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True  # it failed before it was released
            if not data:
                return True
            self.failure += data

    def setup_error(self) -> StepError | None:
        """What failed in the set-up, None where nothing did."""
        return read_failure(self.failure)

    def said_ready(self) -> bool | None:
        """Whether the newline has come on the ready pipe; None where it was closed without one."""
        for _ in range(READY_READS):
            try:
                data = os.read(self.ready_fd, 4096)
            except BlockingIOError:
                return False
            if b"\n" in data:
                return True
            if not data:
                return None
        return False

    def close(self) -> None:
        """It is reaped."""
        self.close_error_fd()
        self.close_ready_fd()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def close_error_fd(self) -> None:
        if self.error_fd >= 0:
            os.close(self.error_fd)
            self.error_fd = -1

    def close_ready_fd(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1

    def kill(self, signum: int) -> None:
        """Signal the process.  It is not reaped, or is held, so this reaches nobody else."""
        # not permitted: a set-uid program of a spawnd that is not root
        with suppress(ProcessLookupError, PermissionError):
            self._send(signum)
            if signum not in _NO_CONT:
                self._send(signal.SIGCONT)  # a stopped process hears it, too

    def _send(self, signum: int) -> None:
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, signum)
        else:
            os.kill(self.pid, signum)

    def kill_group(self) -> None:
        """KILL to its process group, which does not exist yet if it died before `setsid`."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self._kill_group_held()
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

    def _kill_group_held(self) -> None:
        """The pidfd knows its group, whoever has its number now; before Linux 6.9 all processes are looked through."""
        with suppress(ProcessLookupError, PermissionError):
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL, None, PIDFD_SIGNAL_PROCESS_GROUP)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                kill_group(self.pid, self.started)
