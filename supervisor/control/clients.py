"""Who is connected, and who has to go when there is no room: the one that is silent, or idle, for longest."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.control.access import is_privileged
from supervisor.linux.peers import Credentials
from supervisor.varlink.connection import Connection

MAX_CLIENTS = 1024
RESERVED = 16  # of these for root and spawnd's own user: no group can lock them out
# bytes, of all clients together
MAX_CALLS = 8 << 20  # of calls that are not all there
MAX_REPLIES = 64 << 20  # of replies that are not taken: a list of ten thousand services has four millions


class Clients:
    """The connections of those who may use the control socket."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._calls = Budget()
        self._replies = Budget()

    def make_room(self, client: Credentials) -> bool:
        """Whether there is room for another one; for it somebody who keeps silent may have been sent away."""
        privileged = is_privileged(client)
        if len(self._connections) < (MAX_CLIENTS if privileged else MAX_CLIENTS - RESERVED):
            return True
        others = [other for other in self._connections if privileged or not is_privileged(other.client)]
        silent = min((other for other in others if other.idle), key=lambda other: other.since, default=None)
        if silent is None:
            return False
        silent.close()
        return True

    def add(self, connection: Connection) -> None:
        self._connections.add(connection)

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._calls.hold(connection, 0)
        self._replies.hold(connection, 0)

    def holds(self, connection: Connection, of_a_call: int, of_replies: int) -> None:
        """So many bytes are kept for the connection.  Where all of them hold too much, who has for longest goes."""
        self._calls.hold(connection, of_a_call)
        self._replies.hold(connection, of_replies)
        self._calls.keep(MAX_CALLS)
        self._replies.keep(MAX_REPLIES)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)


class Budget:
    """Bytes that connections hold, in the order in which these began to hold any."""

    def __init__(self) -> None:
        self._held: dict[Connection, int] = {}
        self._total = 0

    def hold(self, connection: Connection, size: int) -> None:
        """As many now, whatever it was before."""
        self._total += size - self._held.get(connection, 0)
        if size:
            self._held[connection] = size
        else:
            self._held.pop(connection, None)

    def keep(self, limit: int) -> None:
        """Close connections, which then hold nothing, until all together hold no more than that."""
        while self._total > limit:
            next(iter(self._held)).close()
