"""One client of a control socket.

Calls are answered in the order in which they came, one at a time, and each in its turn among
those of all clients.  The next is taken only when the client has taken the last reply, and
nothing is read meanwhile: who does not read keeps nobody busy.  A client that closes only its
sending half gets its replies; one that is gone altogether has its waiting call cancelled,
while what it had sent before is still carried out.

A call that streams makes its replies as the client takes them: who reads slowly is waited for.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from supervisor.linux.peers import Credentials
from supervisor.loop.loop import Loop, Timer
from supervisor.varlink.errors import Malformed
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.messages import MAX_REQUEST, Call, Framer, encode_error, parse_call
from supervisor.varlink.stream import receive

MAX_OUTPUT = 4 << 20  # bytes that may wait when another reply comes; one reply alone may be longer
PATIENCE = 30.0  # seconds for the rest of a call, and between two reads of a client with replies waiting
GONE = select.EPOLLHUP | select.EPOLLERR
Record = dict[str, Any]


def _nothing(_connection: Connection, _of_a_call: int, _of_replies: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Host:
    """What a connection wants of who accepted it.

    `serve` is given every call, `closed` is called once at the end.  `in_turn` has something
    done soon, `holds` is told how many bytes of a call and of replies are kept for the client
    whenever that changes, `discard` closes the socket.  `limit` is that of a call in bytes.
    """

    serve: Callable[[Exchange], None]
    closed: Callable[[Connection], None]
    in_turn: Callable[[Callable[[], None]], None]
    holds: Callable[[Connection, int, int], None] = _nothing
    discard: Callable[[socket.socket], None] = socket.socket.close
    limit: int = MAX_REQUEST


class Connection:
    """Owns the client's socket."""

    def __init__(self, loop: Loop, sock: socket.socket, client: Credentials, host: Host) -> None:
        self.client = client
        self.since = loop.clock()  # when it came or, if that was later, when its last call was begun
        self._loop = loop
        self._sock = sock
        self._host = host
        self._framer = Framer(host.limit)
        self._output = bytearray()
        self._exchange: Exchange | None = None
        self._overdue: Timer | None = None  # runs while the rest of a call is awaited
        self._stalled: Timer | None = None  # runs while the client is to read
        self._message: bytes | None = None  # the next call, as long as it waits for its turn
        self._ended_sending = False
        self._ending = False
        self._closed = False
        self._held = (0, 0)
        self._events = select.EPOLLIN
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._events, self._ready)

    @property
    def idle(self) -> bool:
        """Whether it is the client's turn to say something, or to finish saying it."""
        return self._exchange is None and not self._output and self._message is None

    def kept(self) -> Record:
        """All that another process needs to go on with this connection, for `resume`; the socket stays as it is."""
        exchange = self._exchange
        waiting = self._message + b"\0" if self._message is not None else b""
        return {
            "fd": self._sock.fileno(),
            "input": (waiting + self._framer.rest()).decode("latin-1"),
            "output": self._output.decode("latin-1"),
            "call": None if exchange is None else asdict(exchange.call),
            "memo": {} if exchange is None else exchange.memo,
            "ended_sending": self._ended_sending,
            "ending": self._ending,
        }

    def resume(self, kept: Record) -> None:
        """Go on where the connection was, when the loop runs.  A call that was being answered is served again."""
        self._framer.feed(kept["input"].encode("latin-1"))
        self._output += kept["output"].encode("latin-1")
        self._ended_sending, self._ending = kept["ended_sending"], kept["ending"]
        streams = kept["call"] is not None and kept["call"]["more"]
        if self._output and not streams:
            self._stalled = self._loop.call_later(PATIENCE, self.close)
        if kept["call"] is not None:
            call = Call(**kept["call"])
            self._exchange = Exchange(call, self.client, self._loop, self, kept["memo"], resumed=True)
            self._host.in_turn(self._serve_again)
        else:
            self._host.in_turn(self._go_on)
        self._settle()

    def _serve_again(self) -> None:
        if self._exchange is not None and not self._closed:
            self._host.serve(self._exchange)

    def read_now(self) -> None:
        """Take what the client has sent by now: among many events it may be a while until its own comes round."""
        self._receive()

    def close(self) -> None:
        """Cancel what waits and close the socket, at once."""
        if self._closed:
            return
        self._closed = True
        self._loop.unwatch(self._sock.fileno())
        self._host.discard(self._sock)
        self._stop_overdue()
        self._stop_stalled()
        if self._exchange is not None:
            self._exchange.cancel()
        self._host.closed(self)

    # what the exchange calls

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
        self._host.in_turn(action)

    def discard(self, sock: socket.socket) -> None:
        self._host.discard(sock)

    def answered(self, ends: bool) -> None:
        self._exchange = None
        self._ending = self._ending or ends
        self._go_on()

    # events

    def _ready(self, events: int) -> None:
        if events & GONE and (self._exchange is not None or self._output or self._ending):
            self.close()
            return
        if events & select.EPOLLOUT:
            self._flush()
            if not self._output and self._exchange is not None:
                self._exchange.room()
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
            streams = self._exchange is not None and self._exchange.streams
            if self._stalled is None and not streams:
                self._stalled = self._loop.call_later(PATIENCE, self.close)
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
            self._host.in_turn(self._begin)
        elif self._ended_sending:
            self.close()
        elif not self._framer.empty and self._overdue is None:
            self._overdue = self._loop.call_later(PATIENCE, self.close)

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
        self._exchange = exchange = Exchange(call, self.client, self._loop, self)
        self._host.serve(exchange)

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
            self._host.holds(self, *held)

    def _stop_overdue(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
