"""Calls that other processes may make wait, with a time limit, with `pipe_call.c` beside this module.

A process that writes to a pipe holds its lock during page faults of its buffer. A fault takes forever if the
page belongs to a FUSE file that is not served, or to userfaultfd(2). Meanwhile read, write, open, FIONREAD
and the last close of the pipe wait for the lock; poll does not. A read also waits, and holds the lock, if
splice(2) has put a page of a FUSE file into the pipe, because the kernel asks its server for the page again.
Therefore a child makes the call, which costs the caller about 0.05 ms. The same holds for bind(2) of a Unix socket,
whose path other users may have led to a file system that does not answer.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Protocol

ROOM = 65536  # maximal bytes of a read or write: the default capacity of a pipe
PATIENCE_MS = 5  # for a child that waits for the lock; its result may come later
SLOW = 0.002  # seconds; after a slower call, the next one is not awaited
LONGER_MS = 500  # for calls whose late result is useless
BIND_MS = 50  # for a bind that is blocked, twice
MOST_UNUSED = 8  # unused memories that are kept for later calls
PAUSE = 0.1  # seconds between two checks of a child without a pidfd

_READ, _WRITE, _OPEN, _CLOSE, _BIND = (ord(letter) for letter in "rwocb")
_LOWEST = 3  # above stdin, stdout and stderr
_NUMBER = struct.Struct("=i")
_FAMILY = struct.Struct("=H")  # of struct sockaddr_un, whose path follows: unix(7)
_LONGEST_PATH = 108
_TAKE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)


class _Memory(ctypes.Structure):
    _fields_ = (("result", ctypes.c_int32), ("data", ctypes.c_char * ROOM))


_Pointer = ctypes.POINTER(_Memory)
_library = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libpipecall.so"))
_new = _library.new_pipe_call
_new.restype = _Pointer
_new.argtypes = ()
_free = _library.free_pipe_call
_free.restype = None
_free.argtypes = (_Pointer,)
_begin = _library.begin_pipe_call
_begin.argtypes = (_Pointer, *[ctypes.c_int] * 5)
_end = _library.end_pipe_call
_end.argtypes = (_Pointer, ctypes.c_int, ctypes.c_int)
_reserve = _library.reserve_pipe_call
_reserve.argtypes = (ctypes.c_int, ctypes.c_int)
_unused: list[ctypes._Pointer[_Memory]] = []  # memory whose child has ended
_left: list[PipeCall] = []  # calls whose results are not wanted


class Loop(Protocol):
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class PipeCall:
    """A call made by a child. `has_ended` reaps the child, so the caller repeats it until it returns True."""

    def __init__(
        self,
        operation: int,
        fd: int,
        size: int = 0,
        data: bytes = b"",
        sock: int = -1,
        patience: int = PATIENCE_MS,
    ) -> None:
        """Start the call, and wait at most `patience` milliseconds. Raises OSError if no child can be started."""
        _left[:] = [call for call in _left if not call.has_ended(0)]
        memory = _unused.pop() if _unused else _new()
        if data:
            ctypes.memmove(ctypes.byref(memory.contents, _Memory.data.offset), data, len(data))
        pid = _begin(memory, operation, fd, sock, size or len(data), patience)
        if pid < 0:
            _keep(memory)
            raise OSError(-pid, os.strerror(-pid))
        self.pid = pid
        self._memory: ctypes._Pointer[_Memory] | None = memory
        self._result = 0
        self._data = b""

    def has_ended(self, patience: int = PATIENCE_MS) -> bool:
        """Wait for the end of the child, up to a time limit while it is blocked; return whether it has ended."""
        memory = self._memory
        if memory is None:
            return True
        if not _end(memory, self.pid, patience):
            return False
        self._result = memory.contents.result
        if self._result > 0:
            self._data = ctypes.string_at(ctypes.byref(memory.contents, _Memory.data.offset), self._result)
        self._memory = None
        _keep(memory)
        return True

    def result(self) -> bytes:
        """Return the bytes that an ended child has read or written. Raises OSError, including BlockingIOError."""
        if self._result < 0:
            raise OSError(-self._result, os.strerror(-self._result))
        return self._data

    @property
    def has_succeeded(self) -> bool:
        """Whether the call of an ended child was successful."""
        return self._result >= 0

    @property
    def was_killed(self) -> bool:
        """Whether an ended child was killed before its call: whether there is anything to read is not known."""
        return self._result == -errno.ETIMEDOUT

    def leave(self) -> None:
        """Ignore the result, and reap the child some time after its end."""
        _left.append(self)

    def when_ended(self, loop: Loop, ended: Callable[[], None]) -> None:
        """Have the loop call `ended` once the child has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            loop.call_later(PAUSE, lambda: self._look(loop, ended))
            return

        def look() -> None:
            loop.unwatch(pidfd)
            os.close(pidfd)
            self._look(loop, ended)

        loop.watch(pidfd, select.EPOLLIN, lambda _events: look())

    def _look(self, loop: Loop, ended: Callable[[], None]) -> None:
        if self.has_ended(0):
            ended()
        else:
            self.when_ended(loop, ended)


def _keep(memory: ctypes._Pointer[_Memory]) -> None:
    """Keep the memory of an ended child for another call, unless enough are kept."""
    if len(_unused) < MOST_UNUSED:
        _unused.append(memory)
    else:
        _free(memory)


def start_read(fd: int, size: int = ROOM, patience: int = PATIENCE_MS) -> PipeCall:
    """Read from a pipe, at most `ROOM` bytes. Raises OSError if no child can be started."""
    return PipeCall(_READ, fd, size, patience=patience)


def start_write(fd: int, data: bytes) -> PipeCall:
    """Write to the pipe of `fd` as much as it has room for. Raises OSError if no child can be started."""
    return PipeCall(_WRITE, fd, data=data)


def open_end(fd: int, access: int) -> int:
    """Open a nonblocking end of a pipe, given another descriptor of it: O_RDONLY or O_WRONLY.

    Raises OSError, TimeoutError if a process holds the lock of the pipe.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        call = PipeCall(_OPEN, fd, access, sock=theirs.fileno())
        if not call.has_ended(LONGER_MS):
            call.leave()
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        call.result()
        _data, ancillary, _flags, _ = ours.recvmsg(0, socket.CMSG_SPACE(_NUMBER.size), _TAKE)
        if not ancillary:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        found: int = _NUMBER.unpack(ancillary[0][2])[0]
        return found


def start_close(fd: int) -> PipeCall:
    """Close a descriptor in such a way that the last close of the pipe happens in an exiting child.

    Raises OSError if no child can be started; the descriptor then remains open.
    """
    return PipeCall(_CLOSE, fd)


def close_end(fd: int) -> None:
    """Close a descriptor of a pipe without waiting for its lock. Raises OSError; the descriptor then remains open."""
    if is_at_end(fd):
        os.close(fd)
        return
    call = start_close(fd)
    if not call.has_ended():
        call.leave()


def bind_in_time(sock: int, path: str) -> None:
    """Bind a Unix socket to a path, so that nobody has permissions for its file.

    Raises OSError, TimeoutError if the file system does not answer; the bind may still happen.
    """
    name = os.fsencode(path)
    if len(name) > _LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    call = PipeCall(_BIND, sock, data=_FAMILY.pack(socket.AF_UNIX) + name, patience=BIND_MS)
    if not call.has_ended(BIND_MS):
        call.leave()
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    call.result()


def reserve() -> None:
    """Prepare fast starts of children in an undumpable process; call it before the process has many descriptors."""
    other = os.eventfd(0, os.EFD_CLOEXEC)  # any descriptor will do
    _reserve(fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, _LOWEST), other)


def is_at_end(fd: int) -> bool:
    """Whether a pipe is empty and has no writer left.

    No process then holds its lock, so a close does not wait: a reader holds the lock only while the pipe has data.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return [events for _fd, events in poll.poll(0)] == [select.POLLHUP]
