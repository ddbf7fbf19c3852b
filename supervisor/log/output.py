"""Output of services with `log()`: to the journal if there is one, else to the log worker."""

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

INFO = 6  # the priority of lines without a prefix
# spawnd writes this mark into the pipe of a service between two processes. If the first process ends without a
# newline, the mark separates its last text from the first line of the next process.
PROCESS_ENDED = b"\0spawnd: the process has ended\n"
MOST_KILLED = 3  # children for a mark that may be killed
FEED_SIZE = 256  # bytes of a message to the log worker: `+NAME` with descriptors, or `-NAME`

Close = Callable[[Iterable[int]], None]  # closes descriptors, even if a process at the other end could block that


class Outputs(Protocol):
    """Streams by service name. They belong to the outputs, and stay open over restarts of the service."""

    def stream(self, name: str, gid: int | None = None) -> int:
        """Return the descriptor for a service. Raises StepError.

        Processes of the group `gid` may reopen a pipe, as programs do with `/dev/stderr`.
        """

    def since(self, name: str, position: Position = START) -> Piece | None:
        """Return the kept output from a position on, or None if the journal has the output."""

    def end_line(self, name: str) -> None:
        """End the last line of a process that ended without a newline. Never blocks."""

    def drop(self, name: str) -> None:
        """Close the stream of a service and forget its kept output."""

    def saved_streams(self, name: str) -> Sequence[int]:
        """Return the open descriptors of a service, for `give` in the next spawnd."""

    def give(self, name: str, fds: Sequence[int]) -> None:
        """Take over the descriptors of `saved_streams`."""


GROUP_WRITES = 0o620  # spawnd keeps the pipe: a service can neither read it nor change its mode


def _let_open(fd: int, gid: int) -> None:
    """Allow processes of a group to open a pipe for writing. Raises StepError."""
    status = os.fstat(fd)
    if (status.st_gid, stat.S_IMODE(status.st_mode)) == (gid, GROUP_WRITES):
        return
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, GROUP_WRITES)
    except OSError as error:
        raise StepError("give the log to group", str(gid), error.errno or 0, error.strerror or str(error)) from error


class JournalOutputs:
    """One stream of the journal for each service, under its name, like `systemd-cat(1)`."""

    def __init__(self, close: Close, address: str = JOURNAL_SOCKET) -> None:
        self._close = close
        self._address = address
        self._streams: dict[str, int] = {}

    @staticmethod
    def available() -> bool:
        return os.path.exists(JOURNAL_SOCKET)

    def stream(self, name: str, gid: int | None = None) -> int:
        """Return a socket, which cannot be reopened by a path."""
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
            # a journal that accepts no connections must not block spawnd: connect(2) fails with EAGAIN then
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
        """Send a newline; the journal ends lines at a change of the sender, and keeps no empty ones."""
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
        self._close(fds)  # from before there was a journal: the descriptors belong to the log worker's streams


def _hung_up(fd: int) -> bool:
    """Whether the journal has closed its end, because a restarted journal has not kept its streams."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class WorkerOutputs:
    """A pipe and a ring for each service; the log worker gets the read end of the pipe and the ring.

    spawnd makes and keeps both, so a killed worker loses nothing: the next one gets them all, and continues
    where the last one stopped.
    """

    def __init__(self, loop: Loop, close: Close) -> None:
        self._loop = loop
        self._close = close
        self._streams: dict[str, tuple[int, int, int]] = {}  # read end, write end, ring
        self._ended: set[str] = set()  # services whose pipe has the mark, and has had no new process since
        self._marks: dict[str, PipeCall] = {}  # calls that wait for the lock of a pipe
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
        """Write a mark to the pipe, between the outputs of the two processes.

        A full or locked pipe gets none. If a child is killed, another one writes; a second mark does no harm.
        """
        if name not in self._streams or name in self._ended or not self._is_marked(name):
            return
        with suppress(OSError):  # no child can be started
            for _ in range(MOST_KILLED):
                mark = start_write(self._streams[name][1], PROCESS_ENDED)
                if not mark.has_ended():
                    self._marks[name] = mark
                    return
                if mark.has_succeeded:
                    self._ended.add(name)
                if not mark.was_killed:
                    return

    def _is_marked(self, name: str) -> bool:
        """Whether no child is waiting to write the previous mark."""
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
        """Return the descriptor from which a new worker receives all streams. The caller owns it."""
        self._close_feed()
        self._feed, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._loop.watch(self._feed.fileno(), 0, self._on_feed)
        self._queue = deque(("+", name) for name in self._streams)
        self._flush()
        return [("feed", theirs.detach())]

    def saved_feed(self) -> int | None:
        """The connection to the log worker, or None; `feed_queue` has the messages not yet sent on it."""
        return self._feed.fileno() if self._feed is not None else None

    def resume_feed(self, fd: int, queue: Iterable[Sequence[str]]) -> None:
        """Continue the connection to a living log worker; takes ownership of `fd`."""
        self._feed = socket.socket(fileno=fd)
        self._queue = deque((operation, name) for operation, name in queue)
        # sends the queued messages as soon as there is room
        self._loop.watch(fd, select.EPOLLOUT, self._on_feed)

    @property
    def feed_queue(self) -> list[tuple[str, str]]:
        return list(self._queue)

    def _on_feed(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._close_feed()  # the worker is gone, and epoll would report that forever
        else:
            self._flush()

    def _send(self, operation: str, name: str) -> None:
        self._queue.append((operation, name))
        self._flush()

    def _flush(self) -> None:
        """Send what the socket accepts, and wait for room for the rest; without a worker, wait for the next one."""
        if self._feed is None:
            self._queue.clear()
            return
        try:
            while self._queue:
                operation, name = self._queue[0]
                stream = self._streams.get(name)
                # for a stream that was dropped before its `+` was sent, only `-` is sent
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
