"""One process of a service, from its fork to its reaping, and what a function of a service answers.

Most processes are children of spawnd.  A process of an earlier spawnd is nobody's child here: it is held by a
pidfd, so that its pid is never mistaken for that of another.

A function answers in a file of the run-time folder: one JSON object, `{"ok": true or false, "text": …}`, written at
once; `text` is what it has to say.  The file, rather than a pipe, is there also for a spawnd that was not there when
the function ended.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.errors import StepError
from supervisor.log.logger import log
from supervisor.process.failure import read_failure, split_notices
from supervisor.process.pids import kill_group

LARGEST = 64 << 10  # bytes

PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # <linux/pidfd.h>, Linux 6.9
OUTPUT_MAX = 4096  # bytes of the output of a check that are kept: the end of it tells most
PIECE = 16384  # bytes that are read at once
READS = 5  # of a pipe, which holds 4 by default, and of a late one: who writes on and on keeps nobody waiting
# what would be undone at once by the CONT that lets a stopped process hear the others
_NO_CONT = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


Read = Callable[[int, int], bytes]  # as os.read, of a descriptor that does not block


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended, and what it says."""

    ok: bool
    text: str = ""


def open_answer(path: str) -> int:
    """An empty file to write the answer to, open; what was in it is gone.  The caller owns it.  Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # not written over: what still has the old one open has nothing to say any more
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def take_answer(path: str) -> Answer | None:
    """The answer, whose file is removed; None where there is none or it was cut off."""
    try:
        with open(path, "rb") as file:
            message = json.loads(file.read(LARGEST))
        # half of a pair, which JSON can have, is nothing that could be written anywhere
        return Answer(bool(message["ok"]), str(message["text"]).encode(errors="backslashreplace").decode())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # whoever wrote it may be anybody
        return None
    finally:
        with suppress(OSError):
            os.unlink(path)


class Role(StrEnum):
    """The role of a process: the service, its check command, or one of its functions, by its name."""

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
    A process that is `in_doubt` may be another's: it is held and watched, and what is to be signalled is `owed`.
    `answer` that of a function that has ended.  `output_fd` is our end of the pipe for the output of a check, and
    `output` the end of what has come there.  `left` is how many processes
    a main process has left that is dead.  `notices` is what the set-up had to do without.
    `number` is its number on pidfs, once somebody has asked for it.
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
    output_fd: int = -1
    output: bytes = field(default=b"")
    left: int = 0
    notices: tuple[str, ...] = field(default=(), compare=False)
    in_doubt: bool = False
    number: int = field(default=0, compare=False)
    owed: int = 0

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
                data = b""  # it failed before it was released
            if not data:
                notices, self.failure = split_notices(self.failure)
                self.notices += notices
                return True
            self.failure += data

    def setup_error(self) -> StepError | None:
        """The failure of the set-up, None where there is none."""
        return read_failure(self.failure) if self.failure else None

    def said_ready(self, read: Read) -> bool | None:
        """Whether the newline has come on the ready pipe; None where it was closed without one."""
        for _ in range(READS):
            try:
                data = read(self.ready_fd, PIECE)
            except BlockingIOError:
                return False
            if b"\n" in data:
                return True
            if not data:
                return None
        return False

    def read_output(self, read: Read) -> bool:
        """Read what a check has written, and keep the end of it; whether nothing else can come."""
        for _ in range(READS):
            try:
                data = read(self.output_fd, PIECE)
            except BlockingIOError:
                return False
            if not data:
                return True
            self.output = (self.output + data)[-OUTPUT_MAX:]
        return False

    def output_lines(self) -> list[str]:
        """The last lines of the output of a check, without empty ones.  Of a very long one there is the end."""
        return [line.rstrip() for line in self.output.decode(errors="backslashreplace").splitlines() if line.strip()]

    def close(self) -> None:
        """It is reaped, and the pipes that it had are taken."""
        self.close_error_fd()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def close_error_fd(self) -> None:
        if self.error_fd >= 0:
            os.close(self.error_fd)
            self.error_fd = -1

    def take_ready_fd(self) -> list[int]:
        """Give up the end of the pipe, if there is one: it is the caller's, who closes it without waiting."""
        taken, self.ready_fd = self.ready_fd, -1
        return [taken] if taken >= 0 else []

    def take_output_fd(self) -> list[int]:
        """The same of the other pipe."""
        taken, self.output_fd = self.output_fd, -1
        return [taken] if taken >= 0 else []

    def kill(self, signum: int) -> None:
        """Signal the process.  It is not reaped, or is held, so this reaches nobody else."""
        if self._owes(signum):
            return
        # not permitted: a set-uid program of a spawnd that is not root
        with suppress(ProcessLookupError, PermissionError):
            self._send(signum)
            if signum not in _NO_CONT:
                self._send(signal.SIGCONT)  # a stopped process hears it, too

    def be_sure(self) -> None:
        """Send the signals that were held back, as the process is known to be the service's own."""
        self.in_doubt = False
        if self.owed:
            self.kill(self.owed)

    def _owes(self, signum: int) -> bool:
        if self.in_doubt and self.owed != signal.SIGKILL:
            log.warning("process %d does not show whether it is the service's: not signalled until it does", self.pid)
            self.owed = signum
        return self.in_doubt

    def _send(self, signum: int) -> None:
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, signum)
        else:
            os.kill(self.pid, signum)

    def kill_group(self) -> None:
        """KILL to its process group, which does not exist yet if it died before `setsid`."""
        if self._owes(signal.SIGKILL):
            return
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
