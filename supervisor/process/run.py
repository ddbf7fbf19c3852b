"""One process of a service, from its fork to its reaping, and the answer of a function of a service.

Most processes are children of spawnd. A process of an earlier spawnd is not: a pidfd holds it, so that its
pid is never mistaken for that of another process.

A function answers in a file of the run-time folder: one JSON object, `{"ok": true or false, "text": …}`,
written at once after the newline that says that it has begun; `text` is its message. Unlike a pipe, the file
also reaches a spawnd that starts after the function has ended.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from fcntl import F_GET_SEALS, F_SEAL_SHRINK, fcntl
from typing import NamedTuple

from supervisor.errors import StepError
from supervisor.log.logger import log
from supervisor.notify.untrusted import MAX_DESCRIPTORS
from supervisor.process.failure import read_failure, split_notices
from supervisor.process.pids import has_memory, kill_group, last_name

LARGEST = 64 << 10  # bytes

_ONE_DESCRIPTOR = socket.CMSG_LEN(4)
_DESCRIPTORS = socket.CMSG_LEN(4 * MAX_DESCRIPTORS)
BEFORE_THE_PROGRAM = ("spawnd", "spawnd: launch", "spawnd: fork ser")  # kernel's names of children before that
SHARED_REPORT = 1 << 16  # bytes of memory that a child shares for its report, as in report.h
PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # <linux/pidfd.h>, Linux 6.9
OUTPUT_MAX = 4096  # bytes of a check's output that are kept: its end tells most
PIECE = 65536  # bytes per read: the default capacity of a pipe
READS = 3  # per turn: a late one, the content of the pipe, and its end; an endless writer must not delay the others
# signals whose effect would be undone by the CONT that lets a stopped process handle the others
_NO_CONT = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


Read = Callable[[int, int], bytes]  # like os.read, of a descriptor that does not block


class Answer(NamedTuple):
    """The result of a call and its message."""

    ok: bool
    text: str = ""


def open_answer(path: str) -> int:
    """Open a new empty file for the answer, in place of an old one; the caller owns it. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # not truncated, because processes may still have the old file open
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def has_begun(path: str) -> bool:
    """Whether the function has begun that answers there; also if the file is gone."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return True


def take_answer(path: str) -> Answer | None:
    """Return the answer and remove its file; None if there is none or it was cut off."""
    answer, _inode = read_answer(path)
    with suppress(OSError):
        os.unlink(path)
    return answer


def drop_answer(path: str, inode: int) -> None:
    """Remove the file of an answer, unless another call has its file there by now."""
    with suppress(OSError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)


def read_answer(path: str) -> tuple[Answer | None, int]:
    """Return the answer, None if there is none or it was cut off, and the inode of its file."""
    inode = 0
    try:
        with open(path, "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            message = json.loads(file.read(LARGEST))
        # JSON can contain half of a surrogate pair, which cannot be encoded
        text = str(message["text"]).encode(errors="backslashreplace").decode()
        return Answer(bool(message["ok"]), text), inode
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # any process may have written the file
        return None, inode


class Role(StrEnum):
    """The role of a process: the service, its check command, or one of its functions, by name."""

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
    """A process that is not reaped yet, so that `pid` and its process group id belong to it.

    Owns its descriptors, each -1 without one: `error_fd`, our end of the pair of sockets on which the child
    reports a failed step of its set-up; `report_fd`, memory for a report that a filter keeps the child from
    writing to the socket; `ready_fd`, with `ready = "fd"`, our end of the pipe for readiness;
    `output_fd`, our end of the pipe for the output of a check; `pidfd` of a process that is no child of ours.
    `started` is the start time in clock ticks since boot. `netns` is the network namespace that its
    definition demands, or None.
    A process that is `in_doubt` may be a foreign one: it is held and watched, and `owed` is the signal to
    send if it is not.
    `answer` is that of a function that has ended. `output` is the end of the output of a check. `left` is the
    number of processes that a dead main process has left. `notices` names the features that the set-up had to
    do without. `number` is its number on pidfs, once it has been read. `files` are those that a process has sent
    which only opens files for the service; None for any other process. `Table.take_over` takes them.
    `has_run` is False if it ended before it executed its program, and None until that is known of a process whose
    report has ended as it was ending.
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
    report_fd: int = -1
    files: list[int] | None = field(default=None, compare=False)
    has_run: bool | None = field(default=True, compare=False)

    def release(self) -> None:
        """Let the child become the service, now that it is written down."""
        with suppress(OSError):  # the child has ended already, and has reported why
            os.write(self.error_fd, b"\n")

    def read_errors(self) -> bool:
        """Read the report of the set-up; return True at its end, after which the program runs or a failure is known."""
        while True:
            try:
                # nearly always the end; a first byte never comes with a descriptor
                data = os.read(self.error_fd, 1) if not self.failure and self.files is None else self._receive()
            except BlockingIOError:
                return False
            except ConnectionResetError:
                data = b""  # the child failed before it was released
            if not data:
                notices, rest = split_notices(self.failure)
                self.failure = self._take_report() or rest.strip()
                self.notices += notices
                return True
            self.failure += data

    def _receive(self) -> bytes:
        """Return more of the report, and keep the memory or the files that come with it. Raises OSError."""
        space = _ONE_DESCRIPTOR if self.files is None else _DESCRIPTORS
        errors = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self.error_fd)
        try:
            data, ancillary, _flags, _address = errors.recvmsg(PIECE, space, socket.MSG_CMSG_CLOEXEC)
        finally:
            errors.detach()
        for _level, _kind, rights in ancillary:
            numbers = array("i", rights)
            if self.files is None:
                self._close_report()
                self.report_fd = numbers[0]
            else:
                self.files += numbers
        return data

    def _take_report(self) -> bytes:
        """Return the report in the shared memory, b"" without one. A read of memory never waits."""
        try:
            if self.report_fd >= 0 and fcntl(self.report_fd, F_GET_SEALS) & F_SEAL_SHRINK:
                return os.pread(self.report_fd, SHARED_REPORT, 0).partition(b"\0")[0]
        except OSError as error:
            log.warning("process %d: cannot read its report: %s", self.pid, error.strerror)
        finally:
            self._close_report()
        return b""

    def _close_report(self) -> None:
        if self.report_fd >= 0:
            os.close(self.report_fd)
            self.report_fd = -1

    def executes(self) -> bool:
        """Return whether the report has ended with the exec, rather than with the process; called in this order.

        A living process has memory. Any other one has its last name, which is that of its program after the exec, but
        that is asked for once it is dead: until then a new name may be to come.
        """
        if self.has_run is None:
            self.has_run = last_name(self.pid) not in BEFORE_THE_PROGRAM
        elif not has_memory(self.pid):
            self.has_run = None
        return bool(self.has_run)

    def setup_error(self) -> StepError | None:
        """Return the failure of the set-up, None without one."""
        return read_failure(self.failure) if self.failure else None

    def said_ready(self, read: Read) -> bool | None:
        """Return whether the newline has come on the ready pipe; None if the pipe was closed without one."""
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
        """Read the output of a check and keep its end; return whether it is complete."""
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
        """Return the last lines of a check's output without empty ones; a very long line is cut at its start."""
        return [line.rstrip() for line in self.output.decode(errors="backslashreplace").splitlines() if line.strip()]

    def close(self) -> None:
        """Close the remaining descriptors of a reaped process; its pipes have been taken."""
        self.close_error_fd()
        self._close_report()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def close_error_fd(self) -> None:
        if self.error_fd >= 0:
            os.close(self.error_fd)
            self.error_fd = -1

    def take_ready_fd(self) -> list[int]:
        """Give up the end of the ready pipe, if any, to the caller, which closes it without waiting."""
        taken, self.ready_fd = self.ready_fd, -1
        return [taken] if taken >= 0 else []

    def take_output_fd(self) -> list[int]:
        """Give up the end of the output pipe, if any, to the caller, which closes it without waiting."""
        taken, self.output_fd = self.output_fd, -1
        return [taken] if taken >= 0 else []

    def kill(self, signum: int) -> None:
        """Signal the process. It is not reaped, or is held, so the signal reaches no other process."""
        if self._owes(signum):
            return
        # PermissionError: a set-uid program under a spawnd that is not root
        with suppress(ProcessLookupError, PermissionError):
            self._send(signum)
            if signum not in _NO_CONT:
                self._send(signal.SIGCONT)  # so that a stopped process handles the signal

    def be_sure(self) -> None:
        """Send the signal that was held back, as the process is now known to be the service's own."""
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
        """Kill the process group, which does not exist yet if the process died before `setsid`."""
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
        """Kill the group through the pidfd, which identifies it; before Linux 6.9, search all processes for it."""
        with suppress(ProcessLookupError, PermissionError):
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL, None, PIDFD_SIGNAL_PROCESS_GROUP)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                kill_group(self.pid, self.started)
