"""Asynchronous calls to an untrusted Varlink service."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from supervisor.errors import SpawnError
from supervisor.loop.loop import Loop, Timer
from supervisor.varlink.connection import read_out_of_band_inline, receive
from supervisor.varlink.messages import MAX_REPLY, MAX_REQUEST, Call, Framer, Malformed, Reply, encode_call, parse_reply

FIRST_PAUSE = 0.01  # seconds until connect(2) is tried again after a full backlog; doubled each time
LONGEST_PAUSE = 0.25
PATIENCE = 30.0  # seconds for the rest of a reply after the first one
GONE = select.EPOLLHUP | select.EPOLLERR


class ChannelError(SpawnError):
    """Root of the errors for which there is no reply."""


class Unreachable(ChannelError):
    """The socket cannot be connected, because of a local error."""


class NotListening(ChannelError):
    """No process listens at the path."""


class TimedOut(ChannelError):
    """The time limit has passed."""


class ConnectionLost(ChannelError):
    """The other end closed the connection while a reply was outstanding."""


class BadReply(ChannelError):
    """The message is not a valid reply."""


class Channel:
    """A connection to the listening socket at `path`, opened by the first call; one call at a time.

    `deadline` (of the loop's clock) limits the time until the first reply to the last call. The rest of a
    later reply that has begun gets `PATIENCE` seconds. `failed` is called at most once, for any error; no
    callback follows it. `in_turn` queues an action for a later turn, `discard` closes the socket. `limit` is
    the maximal size of a reply in bytes.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        deadline: float,
        failed: Callable[[ChannelError], None],
        in_turn: Callable[[Callable[[], None]], None],
        discard: Callable[[socket.socket], None] = socket.socket.close,
        limit: int = MAX_REPLY,
    ) -> None:
        self._loop = loop
        self._path = path
        self._failed = failed
        self._in_turn = in_turn
        self._discard = discard
        self._sock: socket.socket | None = None
        self._connected = False
        self._closed = False
        self._events = 0
        self._call: Call | None = None
        self._replied: Callable[[Reply], None] = lambda reply: None
        self._going_out: Callable[[], None] = lambda: None
        self._output = bytearray()
        self._framer = Framer(limit, "reply")
        self._ended = False  # the other end has closed the connection
        self._scheduled = False
        self._paused = False
        self._streaming = False
        self._pause = FIRST_PAUSE
        self._retry: Timer | None = None
        self._limit: Timer | None = loop.call_at(deadline, self._time_out, is_limit=True)

    def call(
        self, call: Call, replied: Callable[[Reply], None], going_out: Callable[[], None] = lambda: None
    ) -> None:
        """Send a call after the last one was answered.

        `replied` gets each reply; a oneway call has one, once it is sent.

        `going_out` is called before the other end can receive the call. Raises Malformed if the call is
        nested too deeply or exceeds MAX_REQUEST.
        """
        message = encode_call(call)
        if len(message) > MAX_REQUEST:
            raise Malformed(f"a call is longer than {MAX_REQUEST} bytes")
        self._output += message
        self._call, self._replied, self._going_out = call, replied, going_out
        if self._connected:
            self._go_out()
        else:
            self._connect()

    def pause(self) -> None:
        """Accept no more replies until `go_on`."""
        self._paused = True

    def go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._take_soon()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop_limit()
        if self._retry is not None:
            self._retry.cancel()
        if self._sock is not None:
            if self._events:
                self._loop.unwatch(self._sock.fileno())
            self._discard(self._sock)

    # the socket

    def _connect(self) -> None:
        self._retry = None
        try:
            if self._sock is None:
                self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                read_out_of_band_inline(self._sock)
            self._sock.connect(self._path)
        except BlockingIOError:  # the backlog is full: the server is busy, or absent for a moment
            self._retry = self._loop.call_later(self._pause, self._connect)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        except (FileNotFoundError, ConnectionRefusedError):
            self._fail(NotListening())
        except OSError as error:
            self._fail(Unreachable(error.strerror or str(error)))
        else:
            self._connected = True
            self._go_out()

    def _go_out(self) -> None:
        self._going_out()
        self._flush()

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLIN | GONE):
            self._receive()

    def _flush(self) -> None:
        assert self._sock is not None
        try:
            while self._output:
                sent = self._sock.send(self._output)
                del self._output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            # the server may have sent a reason before it closed, and then the end of the stream follows
            self._output.clear()
        if not self._output and self._call is not None and self._call.oneway:
            self._call = None
            self._in_turn(lambda: self._replied(Reply({})))
        self._settle()

    def _receive(self) -> None:
        if self._closed or not self._events & select.EPOLLIN:
            return
        assert self._sock is not None
        try:
            data = receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        except Malformed as error:
            self._fail(BadReply(error.parameters["message"]))
            return
        self._ended = not data
        self._framer.feed(data)
        self._take_soon()

    def _settle(self) -> None:
        """Watch for input when a reply can be delivered, and for output when data waits."""
        if self._closed or self._sock is None:
            return
        reads = not (self._ended or self._scheduled or self._paused)
        events = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self._output else 0)
        before, self._events = self._events, events
        fd = self._sock.fileno()
        if before and not events:  # epoll would report the hang-up continuously
            self._loop.unwatch(fd)
        elif events and not before:
            self._loop.watch(fd, events, self._ready)
        elif events != before:
            self._loop.modify(fd, events)
        if self._streaming:
            self._limit_rest()

    def _limit_rest(self) -> None:
        """Limit the time within a reply of a stream; the time between two replies is unlimited."""
        if self._framer.empty or self._paused:
            self._stop_limit()
        elif self._limit is None:
            self._limit = self._loop.limit_later(PATIENCE, self._time_out)

    # replies

    def _take_soon(self) -> None:
        if not self._scheduled and not self._paused:
            self._scheduled = True
            self._in_turn(self._take)
        self._settle()

    def _take(self) -> None:
        """Take one reply, and leave the next to another turn."""
        self._scheduled = False
        if self._closed:
            return
        try:
            message = self._framer.take()
            if message is not None:
                self._deliver(parse_reply(message))
        except Malformed as error:
            self._fail(BadReply(error.parameters["message"]))
            return
        if message is not None:
            self._take_soon()
        elif self._ended:
            self._fail(ConnectionLost())
        self._settle()

    def _deliver(self, reply: Reply) -> None:
        if self._call is None:
            raise Malformed("a reply to no call")
        if reply.continues and not self._call.more:
            raise Malformed("more than one reply")
        self._streaming = reply.continues
        if reply.continues:
            self._stop_limit()
        else:
            self._call = None
        self._replied(reply)

    # time

    def _time_out(self) -> None:
        self._limit = None
        self._fail(TimedOut())

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _fail(self, error: ChannelError) -> None:
        if not self._closed:
            self.close()
            self._failed(error)
