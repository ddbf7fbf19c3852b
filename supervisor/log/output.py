"""Where the output of services with `log()` goes: the journal where there is one, else the log worker."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from supervisor.errors import StepError
from supervisor.linux.pipe_call import PipeCall, start_write
from supervisor.log.handler import JOURNAL_SOCKET
from supervisor.log.ring import START, Piece, Position, make_ring, since
from supervisor.loop.loop import Loop

INFO = 6  # the priority of lines that name none
# spawnd writes this mark into the pipe of a service between two processes.  If the first process ends without a
# newline, its last text is a line of its own, and not the beginning of the next process's first line.
PROCESS_ENDED = b"\0spawnd: the process has ended\n"
FEED_SIZE = 256  # bytes of a message to the log worker: `+NAME` with descriptors, or `-NAME`

Close = Callable[[Iterable[int]], None]  # of descriptors whose other holders may keep whoever closes them


class Outputs(Protocol):
    """The streams by service name.  The outputs own them; they stay open over restarts of the service."""

    def stream(self, name: str, gid: int | None = None) -> int:
        """Return the descriptor for a service.  Raises StepError.

        Processes of the group may open a pipe again, as programs do with `/dev/stderr`.
        """

    def since(self, name: str, position: Position = START) -> Piece | None:
        """Return the kept output from a position on; None where the journal has it."""

    def end_line(self, name: str) -> None:
        """End the last line of a process that ended without a newline.  Never blocks."""

    def drop(self, name: str) -> None:
        """Close the stream of a service and forget its kept output."""

    def saved_streams(self, name: str) -> Sequence[int]:
        """Return the descriptors that are open for a service, for `give` in the next spawnd."""

    def give(self, name: str, fds: Sequence[int]) -> None:
        """Take over the descriptors of `saved_streams`."""


GROUP_WRITES = 0o620  # a pipe stays spawnd's: a service can neither read it nor change its mode


def _let_open(fd: int, gid: int) -> None:
    """Let processes of a group open a pipe to write.  Raises StepError."""
    status = os.fstat(fd)
    if (status.st_gid, stat.S_IMODE(status.st_mode)) == (gid, GROUP_WRITES):
        return
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, GROUP_WRITES)
    except OSError as error:
        raise StepError("give the log to group", str(gid), error.errno or 0, error.strerror or str(error)) from error


class JournalOutputs:
    """One stream of the journal for each service, under its name (`systemd-cat(1)` does the same)."""

    def __init__(self, close: Close, address: str = JOURNAL_SOCKET) -> None:
        self._close = close
        self._address = address
        self._streams: dict[str, int] = {}

    @staticmethod
    def available() -> bool:
        return os.path.exists(JOURNAL_SOCKET)

    def stream(self, name: str, gid: int | None = None) -> int:
        """A socket, which nobody can open anew."""
        if name in self._streams and _hung_up(self._streams[name]):
            self.drop(name)
        if name not in self._streams:
            try:
                self._streams[name] = self._connect(name)
            except OSError as error:
                cause = error.strerror or str(error)
                raise StepError("connect to the journal", self._address, error.errno or 0, cause) from error
        return self._streams[name]

    def _connect(self, name: str) -> int:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # a journal that accepts nobody must not hold up spawnd: connect(2) fails with EAGAIN then
            stream.setblocking(False)
            stream.connect(self._address)
            # identifier, unit, priority, level prefix, forward to syslog, to kmsg, to console
            stream.sendall(f"{name}\n\n{INFO}\n1\n0\n0\n0\n".encode())
            stream.shutdown(socket.SHUT_RD)
            stream.setblocking(True)
            return stream.detach()
        except BaseException:
            stream.close()
            raise

    def since(self, name: str, position: Position = START) -> Piece | None:
        return None

    def end_line(self, name: str) -> None:
        """The journal ends a line where the sender is another process, and keeps no empty ones."""
        if name in self._streams:
            with socket.socket(fileno=os.dup(self._streams[name])) as stream, suppress(OSError):
                stream.send(b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def drop(self, name: str) -> None:
        fd = self._streams.pop(name, None)
        if fd is not None:
            self._close([fd])

    def saved_streams(self, name: str) -> Sequence[int]:
        return [self._streams[name]] if name in self._streams else []

    def give(self, name: str, fds: Sequence[int]) -> None:
        if len(fds) == 1:
            (self._streams[name],) = fds
            return
        self._close(fds)  # of a log worker, from before there was a journal


def _hung_up(fd: int) -> bool:
    """Whether the journal has closed its end: it was restarted and did not take its streams over."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class WorkerOutputs:
    """A pipe and a ring for each service; the log worker gets the pipe's reading end and the ring.

    Both are made here and stay here, so that a worker that is killed loses nothing: the
    next one is fed with all of them again and goes on reading where the last one stopped.
    """

    def __init__(self, loop: Loop, close: Close) -> None:
        self._loop = loop
        self._close = close
        self._streams: dict[str, tuple[int, int, int]] = {}  # reading end, writing end, ring
        self._ended: set[str] = set()  # whose pipes have the mark, and have been given to no process since
        self._marks: dict[str, PipeCall] = {}  # of pipes that somebody keeps
        self._feed: socket.socket | None = None
        self._queue: deque[tuple[str, str]] = deque()

    def stream(self, name: str, gid: int | None = None) -> int:
        if name not in self._streams:
            self._streams[name] = self._make(name)
            self._send("+", name)
        self._ended.discard(name)
        fd = self._streams[name][1]
        if gid is not None:
            _let_open(fd, gid)
        return fd

    def since(self, name: str, position: Position = START) -> Piece | None:
        stream = self._streams.get(name)
        return since(stream[2], position) if stream is not None else Piece(b"", 0, START)

    def end_line(self, name: str) -> None:
        """In the pipe, so that it is between what the two processes write.

        A pipe that is full, or that somebody keeps locked, goes without.
        """
        if name not in self._streams or name in self._ended or not self._is_marked(name):
            return
        with suppress(OSError):  # there is no child to be had
            mark = start_write(self._streams[name][1], PROCESS_ENDED)
            if not mark.has_ended():
                self._marks[name] = mark
            elif mark.has_succeeded:
                self._ended.add(name)

    def _is_marked(self, name: str) -> bool:
        """Whether no child waits to write the last mark."""
        if name in self._marks and self._marks[name].has_ended(0):
            del self._marks[name]
        return name not in self._marks

    def drop(self, name: str) -> None:
        stream = self._streams.pop(name, None)
        self._ended.discard(name)
        if (mark := self._marks.pop(name, None)) is not None:
            mark.leave()
        if stream is not None:
            self._send("-", name)
            *pipe, ring = stream
            self._close(pipe)
            os.close(ring)

    def saved_streams(self, name: str) -> Sequence[int]:
        return self._streams.get(name, ())

    def give(self, name: str, fds: Sequence[int]) -> None:
        reading_end, writing_end, ring = fds
        self._streams[name] = reading_end, writing_end, ring

    @staticmethod
    def _make(name: str) -> tuple[int, int, int]:
        try:
            ring = make_ring(name)
            try:
                return *os.pipe2(os.O_CLOEXEC), ring
            except BaseException:
                os.close(ring)
                raise
        except OSError as error:
            raise StepError("make log of", name, error.errno or 0, error.strerror or str(error)) from error

    # the log worker

    def feed(self) -> list[tuple[str, int]]:
        """Return the descriptor on which a new worker learns of every stream.  The caller owns it."""
        self._close_feed()
        self._feed, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._loop.watch(self._feed.fileno(), 0, self._on_feed)
        self._queue = deque(("+", name) for name in self._streams)
        self._flush()
        return [("feed", theirs.detach())]

    def saved_feed(self) -> int | None:
        """The connection to the log worker, None where there is none; `feed_queue` is what it has not been told yet."""
        return self._feed.fileno() if self._feed is not None else None

    def resume_feed(self, fd: int, queue: Iterable[Sequence[str]]) -> None:
        """Go on with the connection to a log worker that lives; takes `fd` over."""
        self._feed = socket.socket(fileno=fd)
        self._queue = deque((operation, name) for operation, name in queue)
        # what could not be sent yet goes as soon as there is room
        self._loop.watch(fd, select.EPOLLOUT, self._on_feed)

    @property
    def feed_queue(self) -> list[tuple[str, str]]:
        return list(self._queue)

    def _on_feed(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._close_feed()  # the worker is gone, and epoll would say so for ever
        else:
            self._flush()

    def _send(self, operation: str, name: str) -> None:
        self._queue.append((operation, name))
        self._flush()

    def _flush(self) -> None:
        """Send what the socket takes and wait for room for the rest; without a worker, wait for the next one."""
        if self._feed is None:
            self._queue.clear()
            return
        try:
            while self._queue:
                operation, name = self._queue[0]
                stream = self._streams.get(name)
                # one that was dropped before its `+` could be sent is told of by its `-` alone
                fds = [stream[0], stream[2]] if operation == "+" and stream is not None else []
                if operation == "-" or fds:
                    socket.send_fds(self._feed, [(operation + name).encode()], fds)
                self._queue.popleft()
        except BlockingIOError:
            self._loop.modify(self._feed.fileno(), select.EPOLLOUT)
        except OSError:
            self._close_feed()
        else:
            self._loop.modify(self._feed.fileno(), 0)

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._loop.unwatch(self._feed.fileno())
            with suppress(OSError):
                self._feed.close()
            self._feed = None
        self._queue.clear()
