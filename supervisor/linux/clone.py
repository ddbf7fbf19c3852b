"""clone3(2) for a child of another process, or with few descriptors, because `os.fork` has no flags.

The wrapper calls the same functions of Python's C interface as `os.fork` does around fork(2). It omits
glibc's own handlers, which serve processes with threads; this process has none.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
from collections.abc import Collection
from typing import NoReturn

from supervisor.linux.descriptors import CLOSE_RANGE_UNSHARE, LAST_DESCRIPTOR, close_range, pidfd_getfd

# <linux/sched.h>
CLONE_FILES = 0x00000400
CLONE_PARENT = 0x00008000
PATIENCE_MS = 1000  # for a child to get its descriptors, even on a busy machine, and one more for each of them

_SYS_clone3 = 435  # the same on every architecture
_ARGS = struct.Struct("=8Q")  # struct clone_args, up to `tls`
_SIBLING = _ARGS.pack(CLONE_PARENT, *[0] * 7)  # the exit signal is that of the caller itself
_SHARING = _ARGS.pack(CLONE_FILES, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)

_python = ctypes.pythonapi
_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # keeps the interpreter's lock, like os.fork
_syscall.argtypes = (ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def fork_sibling() -> int:
    """Fork like `os.fork`, but the new process is a child of the caller's parent, which reaps it. Raises OSError.

    The caller has a single thread, and is not the first process of its PID namespace.
    """
    return _fork(_SIBLING)


def fork_apart(kept: Collection[int]) -> int:
    """Fork like `os.fork`, but of the descriptors the new process has only 0, 1, 2 and those `kept`.

    A process closes its copies of all others at its end at the latest, and to close a file of FUSE asks its
    server. So the new process begins in the caller's table, leaves it for one without them, and fetches those
    `kept`, with the same numbers. The caller waits for that, about 1 ms. Raises OSError, PermissionError if
    the process may not fetch them.
    """
    parent, (told, tells) = os.getpid(), os.pipe2(os.O_CLOEXEC)
    try:
        pid = _fork(_SHARING)
        if pid == 0:
            _leave_table(parent, {*(fd for fd in kept if fd > 2), tells}, tells)
            return 0
        if not _tells_in_time(pid, told, PATIENCE_MS + len(kept)):
            _raise_end(pid)
        return pid
    finally:
        if os.getpid() == parent:
            os.close(told)
            os.close(tells)


def _tells_in_time(pid: int, told: int, patience: int) -> bool:
    """Whether the child has got its descriptors. Raises OSError if it cannot be watched, and has been ended."""
    try:
        child = os.pidfd_open(pid)
    except OSError:
        _end(pid)
        raise
    poll = select.poll()
    for fd in (told, child):
        poll.register(fd, select.POLLIN)
    is_late = not poll.poll(patience)
    os.close(child)
    return not is_late and _has_told(told)


def _has_told(told: int) -> bool:
    poll = select.poll()
    poll.register(told, select.POLLIN)
    return bool(poll.poll(0))


def _raise_end(pid: int) -> NoReturn:
    """End a child that has not got its descriptors, and raise the error that is its exit status."""
    status = _end(pid)
    number = status if status > 0 else errno.ETIMEDOUT
    raise OSError(number, os.strerror(number))


def _end(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _leave_table(parent: int, kept: Collection[int], tells: int) -> None:
    """Get a table of its own in the child; a failure is its exit status."""
    try:
        close_range(3, LAST_DESCRIPTOR, CLOSE_RANGE_UNSHARE)
        pidfd = os.pidfd_open(parent)
        if os.getppid() != parent:
            os._exit(errno.ESRCH)
        behind = fcntl.fcntl(pidfd, fcntl.F_DUPFD_CLOEXEC, max(kept) + 1)
        os.close(pidfd)
        for number in sorted(kept):
            fd = pidfd_getfd(behind, number)  # the lowest free number, so none of those to come
            if fd != number:
                os.dup2(fd, number, inheritable=False)
                os.close(fd)
        os.close(behind)
        os.write(tells, b".")
        os.close(tells)
    except OSError as error:
        os._exit(error.errno or errno.EIO)


def _fork(arguments: bytes) -> int:
    _python.PyOS_BeforeFork()
    pid = int(_syscall(_SYS_clone3, arguments, len(arguments)))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid
