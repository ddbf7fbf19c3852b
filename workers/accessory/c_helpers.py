"""Starting the processes that are written in C; see `init.c` and `spawn.c` beside this module.

The init of a PID namespace is identified by pid and start time and held by a pidfd, because it outlives the
process that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from supervisor.linux.glance import read_file

PROGRAM = os.path.join(os.path.dirname(__file__), "init")
_spawn = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "spawn.so"))
_spawn_init = _spawn.spawn_init
_spawn_init.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_spawn_user_namespace = _spawn.spawn_user_namespace
_spawn_user_namespace.argtypes = (ctypes.c_uint32, ctypes.c_uint32)
_spawn_disposal = _spawn.spawn_disposal
_spawn_disposal.argtypes = (ctypes.c_uint, ctypes.POINTER(ctypes.c_int), ctypes.c_uint)
PF_EXITING = 0x4  # <linux/sched.h>, a flag in proc_pid_stat(5)
DISPOSALS = 16  # at the same time, as in spawn.c
DISPOSED = 64  # sockets of each, as there


@dataclass(frozen=True, slots=True)
class Init:
    """The first process of a PID namespace. Owns `pidfd` and the namespace's descriptor `fd`.

    An init that an earlier process has started has neither until it is held: it may have ended meanwhile.
    """

    pid: int
    started: int
    pidfd: int = -1
    fd: int = -1

    @property
    def is_held(self) -> bool:
        return self.pidfd >= 0

    @property
    def is_ending(self) -> bool:
        """Whether it has begun to end: then no process can be started in the namespace.

        A process drops its memory early in its end, and the kernel shows the size of that without waiting for
        the process. The pidfd becomes readable only once all processes of the namespace are reaped.
        """
        try:
            statm = os.open(f"/proc/{self.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(statm, 2) == b"0 "
            finally:
                os.close(statm)
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:  # a process that may not be looked at exists
            return False

    def go(self) -> None:
        """Confirm to the init that it is registered; otherwise it would end by itself. Idempotent."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the init, and with it all processes of its namespace."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> None:
        """Reap it, if it is a child of this process and has ended."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    def wait(self) -> None:
        """Wait until it has ended, if it is a child of this process, and reap it."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.pidfd)


def start_init(name: str) -> int:
    """Start the init of `name` in its own PID namespace; return its pid. Raises OSError."""
    return _check(_spawn_init(PROGRAM.encode(), f"init-{name}".encode()))


def hold_child(pid: int) -> Init:
    """Hold an init that is a child of this process. After an error it is killed and reaped. Raises OSError."""
    try:
        return _hold(pid, start_time(pid))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def find_init(pid: int, started: int) -> Init | None:
    """Hold the init with that pid and start time; None if it has ended, even if another process has its pid now.

    Raises OSError if it lives and cannot be held.
    """
    try:
        if start_time_of_any(pid) != started:  # an error about another process says nothing about the init
            return None
        init = _hold(pid, started)
    except (ProcessLookupError, FileNotFoundError):
        return None
    is_its = False
    try:
        with suppress(ProcessLookupError, FileNotFoundError):
            # if so, the descriptors are its own: a process never gets its pid back
            is_its = start_time_of_any(pid) == started
    finally:
        if not is_its:
            init.close()
    return init if is_its else None


def start_user_namespace(uid: int, gid: int) -> int:
    """Start an idle process in a user namespace of that user; return its pid. The caller ends it before the next.

    Raises OSError with the kernel's error.
    """
    return _check(_spawn_user_namespace(uid, gid))


def start_disposal(number: int, fds: Sequence[int]) -> int:
    """Start a child that empties these sockets, closes descriptors that it finds there, and exits; return its pid.

    The caller still owns the sockets, at most DISPOSED, and keeps them open until then. `number` is below
    DISPOSALS, and no other child has it. Raises OSError.
    """
    return _check(_spawn_disposal(number, (ctypes.c_int * len(fds))(*sorted(fds)), len(fds)))


def end_child(pid: int) -> None:
    """Kill a child and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def start_time(pid: int) -> int:
    """Return the start time of a child of this process, in clock ticks since boot.

    Raises OSError if the child is gone or has begun to end.
    """
    stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(stat, 1024)
    finally:
        os.close(stat)
    return _started(text, pid)


def start_time_of_any(pid: int) -> int:
    """Return the start time of any process, which may block the reader. Raises OSError, TimeoutError."""
    return _started(read_file(f"/proc/{pid}/stat"), pid)


def _started(text: bytes, pid: int) -> int:
    """Return the start time in proc_pid_stat(5). Raises ProcessLookupError if the process has begun to end."""
    # the name may contain anything, so fields are counted from its closing bracket, which field 3 follows
    fields = text.rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X") or int(fields[6]) & PF_EXITING:
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
    """Return the pid; raise OSError for a negative errno."""
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid
