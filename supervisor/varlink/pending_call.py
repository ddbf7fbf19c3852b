"""One call while it is being answered."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from supervisor.linux.peers import Credentials
from supervisor.loop.loop import Loop
from supervisor.varlink.messages import Call, ControlError, ExpectedMore, encode_error, encode_reply


class Sender(Protocol):
    """The connection, as a pending call sees it."""

    def send(self, message: bytes) -> None: ...

    @property
    def has_room(self) -> bool:
        """Whether the caller has taken all that was sent."""

    def in_turn(self, action: Callable[[], None]) -> None: ...

    @property
    def has_room_for_channel(self) -> bool:
        """Whether another connection may be made that `discard_channel` closes."""

    def discard_channel(self, sock: socket.socket) -> None: ...

    def answered(self, ends: bool) -> None:
        """The call is done with; `ends`: so is the connection."""


class PendingCall:
    """A call, and the way back to the one who made it.

    `reply` or `fail` ends it, and so does `cancel`, when the caller is gone.  After that
    all of them do nothing: an answer that comes late has nobody to hear it.

    It outlives an exec of spawnd: the call is served again then, as `resumed`, with the
    plain data that was put into `memo`, and what it orders is not ordered again (`once`).
    """

    def __init__(
        self,
        call: Call,
        client: Credentials,
        loop: Loop,
        sender: Sender,
        memo: dict[str, Any] | None = None,
        resumed: bool = False,
    ) -> None:
        self.call = call
        self.client = client
        self.loop = loop
        self.memo: dict[str, Any] = {} if memo is None else memo
        self.resumed = resumed
        self.ended = False
        self._sender = sender
        self._on_end: list[Callable[[], None]] = []
        self._on_room: Callable[[], None] | None = None

    def once(self, action: Callable[[], object]) -> None:
        """Do what the call orders, unless an earlier process has done it."""
        if not self.resumed:
            action()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back once when the call ends, in whatever way; at once where it has."""
        if self.ended:
            callback()
        else:
            self._on_end.append(callback)

    def stream(self, on_room: Callable[[], None]) -> None:
        """There will be replies for as long as the caller wants, each made only while there is room for it.

        A caller that does not read is then no burden and has no time limit; `on_room` is called once all is read.
        Raises ExpectedMore: the caller wants one reply, or none.
        """
        if not self.call.more or self.call.oneway:
            raise ExpectedMore()
        self._on_room = on_room

    @property
    def streams(self) -> bool:
        return self._on_room is not None and not self.ended

    @property
    def has_room(self) -> bool:
        """Whether another reply may be sent: the caller is there and has taken those before."""
        return not self.ended and self._sender.has_room

    def room(self) -> None:
        """The caller has taken all that was sent."""
        if self._on_room is not None and not self.ended:
            self._on_room()

    def in_turn(self, action: Callable[[], None]) -> None:
        """Have something done soon that takes a while: in its turn among what all clients want."""
        self._sender.in_turn(action)

    @property
    def has_room_for_channel(self) -> bool:
        """Whether another connection to a service may be made: not too many of them wait to be closed."""
        return self._sender.has_room_for_channel

    def discard_channel(self, sock: socket.socket) -> None:
        """Close a connection to a service, which nobody trusts, without waiting for what that left in it."""
        self._sender.discard_channel(sock)

    def reply_more(self, parameters: Mapping[str, object]) -> None:
        """One reply of several; only for a call with `more`."""
        if not self.ended and not self.call.oneway:
            self._sender.send(encode_reply(parameters, continues=True))

    def reply(self, parameters: Mapping[str, object]) -> None:
        """The reply, or the last of several."""
        self.finish(encode_reply(parameters))

    def fail(self, error: ControlError) -> None:
        self.finish(encode_error(error), error.ends)

    def cancel(self) -> None:
        """The caller is gone."""
        if self.ended:
            return
        self.ended = True
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()

    def finish(self, message: bytes, ends: bool = False) -> None:
        """The last message, reply or error, as it goes out; `ends`: the connection closes after it."""
        if self.ended:
            return
        self.cancel()
        if not self.call.oneway:
            self._sender.send(message)
        self._sender.answered(ends)
