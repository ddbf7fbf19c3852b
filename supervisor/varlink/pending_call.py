"""A call that is being answered."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from supervisor.linux.peers import Credentials
from supervisor.loop.loop import Loop
from supervisor.varlink.messages import Call, ControlError, ExpectedMore, encode_error, encode_reply


class Sender(Protocol):
    """The connection as seen by a pending call."""

    def send(self, message: bytes) -> None: ...

    @property
    def has_room(self) -> bool:
        """Whether the caller has received all that was sent."""

    def in_turn(self, action: Callable[[], None]) -> None: ...

    @property
    def has_room_for_channel(self) -> bool:
        """Whether another connection that `discard_channel` closes may be opened."""

    def discard_channel(self, sock: socket.socket) -> None: ...

    def answered(self, ends: bool) -> None:
        """The call has ended; `ends`: the connection as well."""


class PendingCall:
    """A call, and the way to answer it.

    `reply`, `fail` or `cancel` (the caller is gone) end it. After that, they have no effect, so a late answer
    is ignored.

    It survives an exec of spawnd: the call is then served again as `resumed`, with the plain data in `memo`,
    and its orders are not repeated (`once`).
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
        """Execute the call's order, unless an earlier process has executed it."""
        if not self.resumed:
            action()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back once when the call ends in any way, or now if it has ended."""
        if self.ended:
            callback()
        else:
            self._on_end.append(callback)

    def stream(self, on_room: Callable[[], None]) -> None:
        """Announce replies for as long as the caller wants, each made only while there is room for it.

        A caller that does not read then costs nothing and has no time limit; `on_room` is called once it has
        read all. Raises ExpectedMore if the caller accepts at most one reply.
        """
        if not self.call.more or self.call.oneway:
            raise ExpectedMore()
        self._on_room = on_room

    @property
    def streams(self) -> bool:
        return self._on_room is not None and not self.ended

    @property
    def has_room(self) -> bool:
        """Whether another reply may be sent: the caller is connected and has received the earlier ones."""
        return not self.ended and self._sender.has_room

    def room(self) -> None:
        """Called when the caller has received all that was sent."""
        if self._on_room is not None and not self.ended:
            self._on_room()

    def in_turn(self, action: Callable[[], None]) -> None:
        """Queue a longer action, to be executed in its turn among those of all clients."""
        self._sender.in_turn(action)

    @property
    def has_room_for_channel(self) -> bool:
        """Whether another connection to a service may be opened: few enough are still to be closed."""
        return self._sender.has_room_for_channel

    def discard_channel(self, sock: socket.socket) -> None:
        """Close a connection to an untrusted service, without waiting for the data left in it."""
        self._sender.discard_channel(sock)

    def reply_more(self, parameters: Mapping[str, object]) -> None:
        """Send one reply of several; only for a call with `more`."""
        if not self.ended and not self.call.oneway:
            self._sender.send(encode_reply(parameters, continues=True))

    def reply(self, parameters: Mapping[str, object]) -> None:
        """Send the only or last reply."""
        self.finish(encode_reply(parameters))

    def fail(self, error: ControlError) -> None:
        self.finish(encode_error(error), error.ends)

    def cancel(self) -> None:
        """End the call without an answer, because the caller is gone."""
        if self.ended:
            return
        self.ended = True
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()

    def finish(self, message: bytes, ends: bool = False) -> None:
        """Send the last message, an encoded reply or error; `ends`: the connection closes after it."""
        if self.ended:
            return
        self.cancel()
        if not self.call.oneway:
            self._sender.send(message)
        self._sender.answered(ends)
