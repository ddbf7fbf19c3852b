"""Clients of a control socket: how they are accepted, take turns and are served.

The calls of a client are answered one at a time and in order, each in its turn among the calls of all
clients. The next call is read only after the client has received the last reply, so a client that does not
read causes no work. A client that closes only its sending half still gets its replies. If a client is gone,
its waiting call is cancelled, but the calls it sent before are carried out. A streaming call produces replies
at the pace of the client.

Peers may send bytes, but no descriptors. A peer that sends a descriptor over a Unix socket (SCM_RIGHTS) may
leave its last close to the receiver. That close can block for hours, like that of a socket with SO_LINGER. It
happens however the descriptor is dropped: closed after it was received, discarded by a recv(2) without room
for it, or released with the queue of a closed connection. Therefore input is peeked for descriptors before it
is read, and the owner of a connection has to dispose of one that contains any.

An out-of-band byte (MSG_OOB) may carry a descriptor as well. A peek skips that byte, while the next recv(2) or close
frees it. With SO_OOBINLINE it is read like any other byte. An accepted socket does not inherit that option.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from supervisor.linux.peers import Credentials
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.varlink.messages import MAX_REQUEST, Call, Framer, Malformed, encode_error, parse_call
from supervisor.varlink.pending_call import PendingCall

CHUNK = 1 << 14  # bytes per read, so that one peer does not delay the others

MAX_OUTPUT = 4 << 20  # bytes that may wait when another reply is added; a single reply may be longer
PATIENCE = 30.0  # seconds for the rest of a call, and between two reads of a client for which replies wait
GONE = select.EPOLLHUP | select.EPOLLERR
Record = dict[str, Any]

ACCEPTS = 128  # clients accepted in a row before others have their turn
SLICE = 0.002  # seconds for that, because clients that leave descriptors behind take long
ACCEPT_PAUSE = 1.0  # seconds; without descriptors or memory, the socket stays readable and accept(2) fails at once
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

SHARE = 0.002  # seconds of each round of the loop; a longer action has a round for itself


def read_out_of_band_inline(sock: socket.socket) -> None:
    """Let peeks see out-of-band bytes. Required once for each socket, before `receive`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def receive(sock: socket.socket, size: int = CHUNK) -> bytes:
    """Read at most `size` bytes; b"" at the end. Raises Malformed, without reading, if the peer sent a descriptor.

    The caller has called `read_out_of_band_inline` for `sock`. Raises OSError, BlockingIOError if there is no input.
    """
    # a peek takes references of its own, so dropping them closes nothing: unix(7), MSG_CTRUNC
    data, _, flags, _ = sock.recvmsg(size, 0, socket.MSG_PEEK)
    if flags & socket.MSG_CTRUNC:
        raise Malformed("descriptors are not taken")
    return sock.recv(len(data)) if data else data


def _nothing(_connection: Connection, _of_a_call: int, _of_replies: int) -> None:
    pass


class Callbacks(NamedTuple):
    """The callbacks of a connection to its acceptor.

    `serve` gets each call; `closed` is called once, at the end. `in_turn` queues an action for a later turn.
    `holds` gets the bytes of calls and of replies that are kept for the client, whenever they change.
    `discard` closes the socket. `discard_channel` closes a connection opened by a call, which is allowed if
    `has_room_for_channel` returned True. `limit` is the maximal size of a call in bytes.
    """

    serve: Callable[[PendingCall], None]
    closed: Callable[[Connection], None]
    in_turn: Callable[[Callable[[], None]], None]
    holds: Callable[[Connection, int, int], None] = _nothing
    discard: Callable[[socket.socket], None] = socket.socket.close
    discard_channel: Callable[[socket.socket], None] = socket.socket.close
    has_room_for_channel: Callable[[], bool] = lambda: True
    limit: int = MAX_REQUEST


class Connection:
    """A client; owns its socket."""

    def __init__(self, loop: Loop, sock: socket.socket, client: Credentials, callbacks: Callbacks) -> None:
        self.client = client
        self.since = loop.clock()  # when the client connected, or when its last call began
        self._loop = loop
        self._sock = sock
        self._callbacks = callbacks
        self._framer = Framer(callbacks.limit)
        self._output = bytearray()
        self._pending: PendingCall | None = None
        self._overdue: Timer | None = None  # runs while the rest of a call is outstanding
        self._stalled: Timer | None = None  # runs while the client has to read
        self._message: bytes | None = None  # the next call, while it waits for its turn
        self._ended_sending = False
        self._ending = False
        self._closed = False
        self._held = (0, 0)
        self._events = select.EPOLLIN
        sock.setblocking(False)
        read_out_of_band_inline(sock)
        loop.watch(sock.fileno(), self._events, self._ready)

    @property
    def idle(self) -> bool:
        """Whether the client is expected to send a call, or the rest of one."""
        return self._pending is None and not self._output and self._message is None

    def saved(self) -> Record:
        """Return the state that another process needs for `resume`; the socket is not changed."""
        pending = self._pending
        waiting = self._message + b"\0" if self._message is not None else b""
        return {
            "fd": self._sock.fileno(),
            "input": (waiting + self._framer.rest()).decode("latin-1"),
            "output": self._output.decode("latin-1"),
            "call": None if pending is None else pending.call._asdict(),
            "memo": {} if pending is None else pending.memo,
            "ended_sending": self._ended_sending,
            "ending": self._ending,
        }

    def resume(self, saved: Record) -> None:
        """Continue a saved connection once the loop runs. A call that was being answered is served again."""
        self._framer.feed(saved["input"].encode("latin-1"))
        self._output += saved["output"].encode("latin-1")
        self._ended_sending, self._ending = saved["ended_sending"], saved["ending"]
        streams = saved["call"] is not None and saved["call"]["more"]
        if self._output and not streams:
            self._stalled = self._loop.limit_later(PATIENCE, self.close)
        if saved["call"] is not None:
            call = Call(**saved["call"])
            self._pending = PendingCall(call, self.client, self._loop, self, saved["memo"], resumed=True)
            self._callbacks.in_turn(self._serve_again)
        else:
            self._callbacks.in_turn(self._go_on)
        self._settle()

    def _serve_again(self) -> None:
        if self._pending is not None and not self._closed:
            self._callbacks.serve(self._pending)

    def read_now(self) -> None:
        """Read the client's input now; among many events, its own may come much later."""
        self._receive()

    def close(self) -> None:
        """Cancel the pending call and close the socket immediately."""
        if self._closed:
            return
        self._closed = True
        self._loop.unwatch(self._sock.fileno())
        self._callbacks.discard(self._sock)
        self._stop_overdue()
        self._stop_stalled()
        if self._pending is not None:
            self._pending.cancel()
        self._callbacks.closed(self)

    # interface for the pending call

    def send(self, message: bytes) -> None:
        if self._closed:
            return
        if len(self._output) > MAX_OUTPUT:
            self.close()
            return
        self._output += message
        if self._stalled is None:
            self._flush()
        self._settle()

    @property
    def has_room(self) -> bool:
        return not self._output

    def in_turn(self, action: Callable[[], None]) -> None:
        self._callbacks.in_turn(action)

    @property
    def has_room_for_channel(self) -> bool:
        return self._callbacks.has_room_for_channel()

    def discard_channel(self, sock: socket.socket) -> None:
        self._callbacks.discard_channel(sock)

    def answered(self, ends: bool) -> None:
        self._pending = None
        self._ending = self._ending or ends
        self._go_on()

    # events

    def _ready(self, events: int) -> None:
        if events & GONE and (self._pending is not None or self._output or self._ending):
            self.close()
            return
        if events & select.EPOLLOUT:
            self._flush()
            if not self._output and self._pending is not None:
                self._pending.room()
            self._go_on()
        if events & (select.EPOLLIN | GONE):
            self._receive()

    def _receive(self) -> None:
        if self._closed or not self._events & select.EPOLLIN:
            return
        try:
            data = receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        except Malformed as error:
            self._refuse(error)
            return
        self._ended_sending = not data
        self._framer.feed(data)
        self._go_on()

    def _flush(self) -> None:
        """Send as much as the socket accepts. The client has `PATIENCE` seconds for each read."""
        try:
            while self._output:
                sent = self._sock.send(self._output)
                del self._output[:sent]
                self._stop_stalled()
        except (BlockingIOError, InterruptedError):
            streams = self._pending is not None and self._pending.streams
            if self._stalled is None and not streams:
                self._stalled = self._loop.limit_later(PATIENCE, self.close)
        except OSError:
            self.close()

    # calls

    def _go_on(self) -> None:
        """Take the next call, to be served in its turn, once the last one is finished."""
        if self._ending and not self._output:
            self.close()
        if self._closed:
            return
        if self.idle and not self._ending:
            try:
                self._next(self._framer.take())
            except Malformed as error:
                self._refuse(error)
        self._settle()

    def _next(self, message: bytes | None) -> None:
        if message is not None:
            self._stop_overdue()
            self._message = message
            self._callbacks.in_turn(self._begin)
        elif self._ended_sending:
            self.close()
        elif not self._framer.empty and self._overdue is None:
            self._overdue = self._loop.limit_later(PATIENCE, self.close)

    def _begin(self) -> None:
        message, self._message = self._message, None
        if self._closed or message is None:
            return
        try:
            call = parse_call(message)
        except Malformed as error:
            self._refuse(error)
            return
        self.since = self._loop.clock()
        self._pending = pending = PendingCall(call, self.client, self._loop, self)
        self._callbacks.serve(pending)

    def _refuse(self, error: Malformed) -> None:
        """Answer invalid input with an error, and ignore all further input."""
        self._ending = True
        self.send(encode_error(error))
        self._go_on()

    def _settle(self) -> None:
        """Update the watched events and the numbers of held bytes after a change."""
        if self._closed:
            return
        reads = self.idle and not (self._ended_sending or self._ending)
        events = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self._output else 0)
        if events != self._events:
            self._events = events
            self._loop.modify(self._sock.fileno(), events)
        held = self._framer.size, len(self._output)
        if held != self._held:
            self._held = held
            self._callbacks.holds(self, *held)

    def _stop_overdue(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class Acceptor:
    """Accepts clients of a listening socket and gives each to `take_in`, which owns it.

    The caller keeps the listener.
    """

    def __init__(self, loop: Loop, listener: socket.socket, take_in: Callable[[socket.socket], None]) -> None:
        self._loop = loop
        self._listener = listener
        self._take_in = take_in
        self._pause: Timer | None = None
        self._watching = False
        listener.setblocking(False)
        self.go_on()

    def go_on(self) -> None:
        """Accept clients, also after `stop`."""
        self._pause = None
        if not self._watching:
            self._watching = True
            self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def stop(self) -> None:
        """Leave new clients in the backlog."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._watching:
            self._watching = False
            self._loop.unwatch(self._listener.fileno())

    def _accept(self, _events: int) -> None:
        end = self._loop.clock() + SLICE
        try:
            for _ in range(ACCEPTS):
                if self._watching and self._loop.clock() <= end:
                    self._take_in(self._listener.accept()[0])
        except OSError as error:
            if error.errno in NO_ROOM:
                log.warning("cannot accept on the control socket: %s; trying again in 1 s", error.strerror)
                self.stop()
                self._pause = self._loop.call_later(ACCEPT_PAUSE, self.go_on)
            # any other error concerns only this client, which hung up, or means that there are no more


class Turns:
    """Executes actions in order in later rounds of the loop, and leaves most of each round to others."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        self._planned = False

    def add(self, action: Callable[[], None]) -> None:
        self._queue.append(action)
        self._plan()

    def _plan(self) -> None:
        if self._queue and not self._planned:
            self._planned = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        end = self._loop.clock() + SHARE
        try:
            while self._queue:
                self._queue.popleft()()
                if self._loop.clock() >= end:
                    break
        finally:
            self._planned = False
            self._plan()
