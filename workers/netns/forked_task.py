"""A function in a short-lived child: its imports, namespaces and memory are gone with the child.

The child leads its own process group, so that it can be killed with everything that it has started. It is
killed when the worker dies, because its result could reach nothing then.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from supervisor.errors import SpawnError
from supervisor.linux.signal_mask import block_all, default_all, set_mask, unblock_all
from supervisor.log.logger import log
from supervisor.loop.loop import Loop

LONGEST_ANSWER = 1 << 16  # bytes
INT = struct.Struct("i")
RECEIVE = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class Outcome:
    """The result of a task: its value and a descriptor, -1 for none; or in `problem` the reason why there is none.

    The owner of the outcome owns the descriptor. This is an ordinary class, because making any other class
    runs the compiler, and the pages that the compiler writes to are no longer shared with the worker.
    """

    __slots__ = ("fd", "problem", "value")

    def __init__(self, value: Any = None, problem: str = "", fd: int = -1) -> None:
        self.value = value
        self.problem = problem
        self.fd = fd


class ForkedTask:
    """Runs `function` and calls `done(outcome)` from the loop, unless it is stopped before that.

    The value is plain data, and small; `WithDescriptor` passes on a descriptor as well. The child is killed
    after `limit` seconds. With `slow`, which is called then, it gets the same time again, as long as it uses
    CPU time and less than the limit. Otherwise, on a machine where hundreds do the same, all of them would be
    killed shortly before they finish, again and again. Owns the child.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        function: Callable[[], Any],
        limit: float,
        done: Callable[[Outcome], None],
        slow: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._name = name
        self._limit = limit
        self._done = done
        self._slow = slow
        self._used = 0.0
        self._late = False
        self._answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._pid = _fork(lambda: _run(name, function, theirs))
        except BaseException:
            self._answer.close()
            raise
        finally:
            theirs.close()
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:  # no free descriptor, so its end would not be noticed
            self._kill()
            os.waitpid(self._pid, 0)
            self._answer.close()
            raise
        self._timer = loop.limit_later(limit, self._too_late)
        loop.watch(self._pidfd, select.EPOLLIN, lambda _events: self._ended())

    def stop(self) -> None:
        """Kill the child and wait until it is gone; `done` is not called."""
        self._kill()
        outcome = self._reap()
        if outcome.fd >= 0:
            os.close(outcome.fd)

    def _kill(self) -> None:
        # it is not reaped, so the pid is its own, and so is the group, which it may not have made yet
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.kill(self._pid, signal.SIGKILL)

    def _too_late(self) -> None:
        if self._slow is not None and self._gets_on():
            self._timer = self._loop.limit_later(self._limit, self._too_late)
            self._slow()
            return
        self._late = True
        self._kill()

    def _gets_on(self) -> bool:
        before, self._used = self._used, _processor_time(self._pid)
        return before < self._used < self._limit

    def _ended(self) -> None:
        self._done(self._reap())

    def _reap(self) -> Outcome:
        """Wait for the end of the child, and close its descriptors."""
        self._loop.unwatch(self._pidfd)
        self._timer.cancel()
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._pidfd)
        answer, fd = _receive(self._answer)
        self._answer.close()
        if answer:
            value, problem = marshal.loads(answer)  # noqa: S302  a child of our own wrote it
            return Outcome(value, problem, fd)
        return Outcome(problem=self._how_it_ended(status))

    def _how_it_ended(self, status: int) -> str:
        if self._late:
            return f"{self._name} took longer than {self._limit:g} s"
        if status < 0:
            return f"{self._name} was killed by {signal.Signals(-status).name.removeprefix('SIG')}"
        return f"{self._name} exited with status {status}" if status else ""


def _processor_time(pid: int) -> float:
    """Return the CPU time in seconds, with a resolution of clock ticks, of a child that is not reaped."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    finally:
        os.close(fd)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _receive(sock: socket.socket) -> tuple[bytes, int]:
    """Return the answer and its descriptor; nothing if the task sent none.

    It does not wait, because another process may still have the task's end of the socket.
    """
    try:
        # not socket.recv_fds, which ignores flags in Python 3.11
        data, ancillary, *_ = sock.recvmsg(LONGEST_ANSWER, socket.CMSG_LEN(INT.size), RECEIVE)
    except BlockingIOError:
        return b"", -1
    return data, INT.unpack(ancillary[0][2])[0] if ancillary else -1


def _fork(child: Callable[[], NoReturn]) -> int:
    """Fork like spawnd: all signals are blocked until the handlers in the child are the default ones."""
    parent = os.getpid()
    before = block_all()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                _leave(parent)
                child()
            except BaseException:
                with suppress(OSError):
                    os.write(2, traceback.format_exc().encode(errors="replace"))
            finally:
                os._exit(1)
    finally:
        set_mask(before)
    with suppress(OSError):  # the child has done so itself, or is gone already
        os.setpgid(pid, pid)
    return pid


def _leave(parent: int) -> None:
    import prctl

    signal.set_wakeup_fd(-1)
    default_all()
    unblock_all()
    os.setpgid(0, 0)
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class WithDescriptor:
    """The result of a task: its value, and a descriptor that is passed on to the worker."""

    def __init__(self, value: Any, fd: int) -> None:
        self.value = value
        self.fd = fd


def _run(name: str, function: Callable[[], Any], answer: socket.socket) -> NoReturn:
    value, problem, fds = None, "", []
    try:
        value = function()
        if isinstance(value, WithDescriptor):
            value, fds = value.value, [value.fd]
    except SpawnError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{name}: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
    except BaseException as error:
        log.error("unexpected error", exc_info=error)
        problem = f"unexpected error: {type(error).__name__}: {error}"
    socket.send_fds(answer, [marshal.dumps((value, problem))], fds)
    os._exit(0)
