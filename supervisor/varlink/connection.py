"""Clients of a control socket: how they are accepted, take turns and are served.

Calls are answered in the order in which they came, one at a time, and each in its turn among those of all clients.
The next is taken only when the client has taken the last reply, and nothing is read meanwhile: a client that does not
read keeps nobody busy.  A client that closes only its sending half gets its replies; one that is gone altogether has
its waiting call cancelled, while what it had sent before is still carried out.  A call that streams makes its replies
as the client takes them: a slow reader is waited for.

Bytes are taken from such peers, descriptors are not.  A peer that sends a descriptor over a Unix socket (SCM_RIGHTS)
leaves its last close to the receiver.  That close may wait for hours, as that of a socket with SO_LINGER does, and it
comes in whatever way the descriptor goes: received and closed, discarded by a recv(2) that has no room for it, or with
the connection in whose queue it is.  So it is looked for before it is touched; getting rid of such a connection is the
business of its owner.

A byte out of band (MSG_OOB) may carry a descriptor, too.  A look passes over it, while the next recv(2) or the close
frees it; with SO_OOBINLINE it is read like any other byte.  An accepted socket does not inherit that option.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from supervisor.linux.peers import Credentials
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.varlink.messages import MAX_REQUEST, Call, Framer, Malformed, encode_error, parse_call
from supervisor.varlink.pending_call import PendingCall

CHUNK = 1 << 14  # bytes at a time: what one peer has to say must not keep the others waiting

MAX_OUTPUT = 4 << 20  # bytes that may wait when another reply comes; one reply alone may be longer
PATIENCE = 30.0  # seconds for the rest of a call, and between two reads of a client with replies waiting
GONE = select.EPOLLHUP | select.EPOLLERR
Record = dict[str, Any]

ACCEPTS = 128  # clients taken in one after the other before others have their turn
SLICE = 0.002  # seconds for that: clients that leave descriptors behind take long
ACCEPT_PAUSE = 1.0  # seconds; without descriptors or memory the socket stays readable, and accepting would spin
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

SHARE = 0.002  # seconds of each round of the loop; what takes longer has a round to itself


def read_out_of_band_inline(sock: socket.socket) -> None:
    """Make looks into a stream see bytes out of band.  Needed once for each socket, before `receive`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def receive(sock: socket.socket, size: int = CHUNK) -> bytes:
    """Read at most `size` bytes; empty at the end.  Raises Malformed, and takes nothing: a descriptor came.

    The caller has made `sock` with `read_out_of_band_inline`.
    Raises OSError, BlockingIOError where nothing is there.
    """
    # a look has references of its own to what it sees, so dropping those closes nothing: unix(7), MSG_CTRUNC
    data, _, flags, _ = sock.recvmsg(size, 0, socket.MSG_PEEK)
    if flags & socket.MSG_CTRUNC:
        raise Malformed("descriptors are not taken")
    return sock.recv(len(data)) if data else data


def _nothing(_connection: Connection, _of_a_call: int, _of_replies: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of a connection to its acceptor.

    `serve` is given every call, `closed` is called once at the end.  `in_turn` has something
    done soon, `holds` is told how many bytes of a call and of replies are kept for the client
    whenever that changes, `discard` closes the socket.  `limit` is that of a call in bytes.
    `discard_channel` closes a connection that a call has made, where `has_room_for_channel` has said that it may.
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
    """Owns the client's socket."""

    def __init__(self, loop: Loop, sock: socket.socket, client: Credentials, callbacks: Callbacks) -> None:
        self.client = client
        self.since = loop.clock()  # when it came or, if that was later, when its last call was begun
        self._loop = loop
        self._sock = sock
        self._callbacks = callbacks
        self._framer = Framer(callbacks.limit)
        self._output = bytearray()
        self._pending: PendingCall | None = None
        self._overdue: Timer | None = None  # runs while the rest of a call is awaited
        self._stalled: Timer | None = None  # runs while the client is to read
        self._message: bytes | None = None  # the next call, as long as it waits for its turn
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
        """Whether it is the client's turn to say something, or to finish saying it."""
        return self._pending is None and not self._output and self._message is None

    def saved(self) -> Record:
        """All that another process needs to go on with this connection, for `resume`; the socket stays as it is."""
        pending = self._pending
        waiting = self._message + b"\0" if self._message is not None else b""
        return {
            "fd": self._sock.fileno(),
            "input": (waiting + self._framer.rest()).decode("latin-1"),
            "output": self._output.decode("latin-1"),
            "call": None if pending is None else asdict(pending.call),
            "memo": {} if pending is None else pending.memo,
            "ended_sending": self._ended_sending,
            "ending": self._ending,
        }

    def resume(self, saved: Record) -> None:
        """Go on where the connection was, when the loop runs.  A call that was being answered is served again."""
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
        """Take what the client has sent by now: among many events it may be a while until its own comes round."""
        self._receive()

    def close(self) -> None:
        """Cancel what waits and close the socket, at once."""
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

    # what the pending call uses

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
        """Send what the socket takes.  The client has `PATIENCE` to make room, anew after each read of its."""
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
        """Take the next call, to be served in its turn, once there is nothing left to do for the last one."""
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
        """Say what is wrong with what came; nothing else of it is looked at."""
        self._ending = True
        self.send(encode_error(error))
        self._go_on()

    def _settle(self) -> None:
        """See to what is waited for, and say how much is held, once something has changed."""
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
    """Gives each new client of the listening socket to `take_in`, which owns it.  The listener stays the caller's."""

    def __init__(self, loop: Loop, listener: socket.socket, take_in: Callable[[socket.socket], None]) -> None:
        self._loop = loop
        self._listener = listener
        self._take_in = take_in
        self._pause: Timer | None = None
        self._watching = False
        listener.setblocking(False)
        self.go_on()

    def go_on(self) -> None:
        """Accept, also after `stop`."""
        self._pause = None
        if not self._watching:
            self._watching = True
            self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def stop(self) -> None:
        """Leave those who come in the backlog."""
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
            # any other is of this one client (it hung up), or says that there are no more


class Turns:
    """Does what it is given in the order given, in later rounds of the loop, and leaves most of each to others."""

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
