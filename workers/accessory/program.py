"""Starting the processes that are written in C, beside this module: what they do is said there.

A process that has become process 1 of a PID namespace is known by pid and start time, and held by a
pidfd: it outlives whoever started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

PROGRAM = os.path.join(os.path.dirname(__file__), "init")
_spawn = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "spawn.so"))
_spawn_init = _spawn.spawn_init
_spawn_init.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_spawn_user_namespace = _spawn.spawn_user_namespace
_spawn_user_namespace.argtypes = (ctypes.c_uint32, ctypes.c_uint32)
_drop_datagram = _spawn.drop_datagram
_drop_datagram.argtypes = (ctypes.c_int,)


@dataclass(frozen=True, slots=True)
class Init:
    """The first process of a PID namespace.  Owns `pidfd` and the namespace's descriptor `fd`.

    One that an earlier process has started has neither until it is held: it may have ended since.
    """

    pid: int
    started: int
    pidfd: int = -1
    fd: int = -1

    @property
    def is_held(self) -> bool:
        return self.pidfd >= 0

    def go(self) -> None:
        """Tell it that it is known: it would end by itself otherwise.  More than once does no harm."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)

    def kill(self) -> None:
        """End it, and with it all processes of its namespace."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> None:
        """Take its exit status, if it is a child of this process and has ended."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    def wait(self) -> None:
        """Wait until it has ended, if it is a child of this process, and take its exit status."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.pidfd)


def start_init(name: str) -> int:
    """Start the init of `name` in a PID namespace of its own; its pid.  Raises OSError."""
    return _check(_spawn_init(PROGRAM.encode(), f"init-{name}".encode()))


def hold_child(pid: int) -> Init:
    """Hold an init that is a child of this process.  Raises OSError, and then it is killed and reaped."""
    try:
        return _hold(pid, start_time(pid))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def find_init(pid: int, started: int) -> Init | None:
    """The init with that pid and start time; None where it has ended, whoever may have its pid now.

    Raises OSError where it lives and cannot be held.
    """
    try:
        if start_time(pid) != started:  # what fails with another's process is not about ours
            return None
        init = _hold(pid, started)
    except (ProcessLookupError, FileNotFoundError):
        return None
    is_its = False
    try:
        with suppress(ProcessLookupError, FileNotFoundError):
            # so what was opened is its own: a pid does not come back to who had it
            is_its = start_time(pid) == started
    finally:
        if not is_its:
            init.close()
    return init if is_its else None


def start_user_namespace(uid: int, gid: int) -> int:
    """Start a process in a user namespace of that user; it does nothing.  The caller ends it before the next.

    Raises OSError with what the kernel said.
    """
    return _check(_spawn_user_namespace(uid, gid))


def drop_datagram(fd: int) -> None:
    """Take the next datagram from a socket; what came along is let go of without waiting for what that leads to.

    Raises OSError, EAGAIN where there is no process to be had.
    """
    _check(_drop_datagram(fd))


def end_child(pid: int) -> None:
    """Kill a child and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def start_time(pid: int) -> int:
    """When a process was started, in clock ticks since boot: proc_pid_stat(5).  Raises OSError where it is gone."""
    stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(stat, 1024)
    finally:
        os.close(stat)
    # the name may hold anything, so count from its closing bracket: field 3 follows it
    fields = text.rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(pid)
    return int(fields[19])


def _hold(pid: int, started: int) -> Init:
    pidfd = os.pidfd_open(pid)
    try:
        return Init(pid, started, pidfd, os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC))
    except BaseException:
        os.close(pidfd)
        raise


def _check(pid: int) -> int:
    """The pid; where it is an errno with a minus sign, that is raised."""
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid
