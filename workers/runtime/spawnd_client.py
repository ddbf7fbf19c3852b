"""Calls from a worker's loop to spawnd's own interface, `io.spawnd`, over its control socket.

    def listed(reply: Mapping[str, Any]) -> None: ...
    def failed(error: SpawndError) -> None: ...

    client = SpawndClient(loop, "/run/spawnd/control")
    client.call("List", listed, failed, timeout=5.0)
    monitor = client.follow("Monitor", changed, failed, timeout=5.0)

A worker knows spawnd's interface only by its description: `supervisor/control/io.spawnd.varlink`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from supervisor.errors import SpawnError
from supervisor.loop.loop import Loop
from supervisor.varlink.channel import Channel, ChannelError, ConnectionLost, NotListening, TimedOut
from supervisor.varlink.connection import Turns
from supervisor.varlink.messages import Call, Reply

LARGEST = 64 << 20  # bytes of a reply: a host may have thousands of services
INTERFACE = "io.spawnd"
CAUSES: Mapping[type[ChannelError], str] = {
    NotListening: "no process listens on its control socket",
    TimedOut: "it does not answer in time",
    ConnectionLost: "it has closed the connection",
}

Replied = Callable[[Mapping[str, Any]], None]


class SpawndError(SpawnError):
    """A call has no result. `name` is that of spawnd's error, '' if spawnd could not be reached."""

    def __init__(self, text: str, name: str = "", parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.name = name
        self.parameters: Mapping[str, Any] = parameters or {}


Failed = Callable[[SpawndError], None]


class SpawndClient:
    """Makes a connection for each call. `path` is that of the control socket; the caller still owns the loop."""

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._path = path
        self._turns = Turns(loop)

    def call(self, method: str, replied: Replied, failed: Failed, timeout: float, **parameters: object) -> Following:
        """Call `io.spawnd.METHOD`: `replied` gets the parameters of its reply, or `failed` the error.

        One of them is called, once, from the loop, within `timeout` seconds.
        """
        return self._make(Call(f"{INTERFACE}.{method}", parameters), replied, failed, timeout)

    def follow(self, method: str, replied: Replied, failed: Failed, timeout: float, **parameters: object) -> Following:
        """Call a method with several replies: `replied` gets each, until the last one or `close`.

        The first has to arrive within `timeout` seconds; there is no limit between two others.
        """
        return self._make(Call(f"{INTERFACE}.{method}", parameters, more=True), replied, failed, timeout)

    def _make(self, call: Call, replied: Replied, failed: Failed, timeout: float) -> Following:
        following = Following(call.method, replied, failed)
        deadline = self._loop.clock() + timeout
        channel = Channel(self._loop, self._path, deadline, following.lost, self._turns.add, limit=LARGEST)
        following.begin(channel, call)
        return following


class Following:
    """A call in progress. Owns its connection, which ends with the last reply."""

    def __init__(self, method: str, replied: Replied, failed: Failed) -> None:
        self._method = method
        self._replied = replied
        self._failed = failed
        self._channel: Channel | None = None
        self._is_over = False

    def begin(self, channel: Channel, call: Call) -> None:
        self._channel = channel
        if self._is_over:
            channel.close()
        else:
            channel.call(call, self._take)

    def close(self) -> None:
        """Give up the call: nothing is called back any more."""
        self._is_over = True
        if self._channel is not None:
            self._channel.close()

    def lost(self, error: ChannelError) -> None:
        """Fail the call: the connection has ended without a reply."""
        if not self._is_over:
            self.close()
            cause = CAUSES.get(type(error)) or str(error)
            self._failed(SpawndError(f"cannot call {self._method} of spawnd: {cause}"))

    def _take(self, reply: Reply) -> None:
        if not reply.continues:
            self.close()
        if reply.error:
            self._failed(SpawndError(_in_words(self._method, reply), reply.error, reply.parameters))
        else:
            self._replied(reply.parameters)


def _in_words(method: str, reply: Reply) -> str:
    details = ", ".join(f"{key}={value!r}" for key, value in reply.parameters.items() if value is not None)
    return f"cannot call {method} of spawnd: {reply.error}{f' ({details})' if details else ''}"
