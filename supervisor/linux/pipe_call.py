"""Calls on pipes that others may keep locked, with a time limit: `pipe_call.c`, beside this module.

A process that writes to a pipe keeps its lock while it waits in a page fault of its buffer, which may be for ever: the
page is one of a FUSE file, or of userfaultfd(2).  To read from the pipe, to write to it, to open it, to ask for what is
in it (FIONREAD) and to close its last descriptor then wait for the lock.  To poll it does not.  A read also waits, and
has the lock meanwhile, where splice(2) has put a page of a FUSE file into the pipe, whose server is asked for it again.
So a child makes the call, which costs the caller some 0.05 ms.
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

ROOM = 65536  # bytes that a call reads or writes at most: what a pipe holds by default
PATIENCE_MS = 5  # for a child that waits for the lock: its result may come later
SLOW = 0.002  # seconds; who takes as long as that is not waited for the next time
LONGER_MS = 500  # where a late answer is of no use
MOST_UNUSED = 8  # memories of calls that are kept for the next ones
PAUSE = 0.1  # seconds between two looks at a child for which there is no pidfd

_READ, _WRITE, _OPEN, _CLOSE = (ord(letter) for letter in "rwoc")
_LOWEST = 3  # above those for input and output
_NUMBER = struct.Struct("=i")
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
_left: list[PipeCall] = []  # whose results nobody wants


class Loop(Protocol):
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class PipeCall:
    """A call that a child makes.  The caller asks for its end until it has come: the child is reaped by that."""

    def __init__(
        self,
        operation: int,
        fd: int,
        size: int = 0,
        data: bytes = b"",
        sock: int = -1,
        patience: int = PATIENCE_MS,
    ) -> None:
        """Wait for the child so many milliseconds at most.  Raises OSError where there is no child to be had."""
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
        """Wait until the child has ended, or waits for others for so many milliseconds; whether it has ended."""
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
        """The bytes that a child which has ended read or wrote.  Raises OSError, BlockingIOError too."""
        if self._result < 0:
            raise OSError(-self._result, os.strerror(-self._result))
        return self._data

    @property
    def has_succeeded(self) -> bool:
        """Whether the call of a child that has ended did what it was to do."""
        return self._result >= 0

    def leave(self) -> None:
        """Reap the child at some time after its end: nobody wants the result."""
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
    """Keep the memory of a call whose child is gone for another one, unless there is enough."""
    if len(_unused) < MOST_UNUSED:
        _unused.append(memory)
    else:
        _free(memory)


def start_read(fd: int, size: int = ROOM, patience: int = PATIENCE_MS) -> PipeCall:
    """Read from a pipe, at most `ROOM` bytes.  Raises OSError where there is no child to be had."""
    return PipeCall(_READ, fd, size, patience=patience)


def start_write(fd: int, data: bytes) -> PipeCall:
    """Write to the pipe of `fd` what it has room for at once.  Raises OSError where there is no child to be had."""
    return PipeCall(_WRITE, fd, data=data)


def open_end(fd: int, access: int) -> int:
    """Open an end, which does not block, of a pipe by another descriptor of it: O_RDONLY or O_WRONLY.

    Raises OSError, TimeoutError where somebody keeps the pipe.
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
    """Close a descriptor, so that the last close of the pipe is that of a child which ends.

    Raises OSError where there is no child to be had, and then the descriptor is not closed.
    """
    return PipeCall(_CLOSE, fd)


def close_end(fd: int) -> None:
    """Close a descriptor of a pipe, and wait for nobody who keeps the pipe.  Raises OSError, and it is not closed."""
    if is_at_end(fd):
        os.close(fd)
        return
    call = start_close(fd)
    if not call.has_ended():
        call.leave()


def reserve() -> None:
    """Let children begin fast in a process that may not be traced and will have many descriptors: before it has."""
    other = os.eventfd(0, os.EFD_CLOEXEC)  # of no consequence
    _reserve(fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, _LOWEST), other)


def is_at_end(fd: int) -> bool:
    """Whether a pipe has no writer any more and is empty.

    Then nobody has its lock, and to close it does not wait: who reads keeps it only while something is in it.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return [events for _fd, events in poll.poll(0)] == [select.POLLHUP]
