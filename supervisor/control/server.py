"""The control socket: admits clients, and dispatches each call to its verb."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from supervisor.control.core import Core
from supervisor.control.errors import (
    ControlError,
    Failed,
    InvalidParameter,
    MethodNotFound,
    PermissionDenied,
    TooManyClients,
)
from supervisor.control.path_watch import PathWatch
from supervisor.control.verbs import METHODS
from supervisor.errors import RuntimeFolderError
from supervisor.linux.peers import Credentials, peer_credentials, peer_groups
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.notify.safe_close import ClosingQueue, WhenReaped, safe_close
from supervisor.printable import count, quoted
from supervisor.varlink.connection import Acceptor, Callbacks, Connection, Record, Turns
from supervisor.varlink.pending_call import PendingCall

BACKLOG = 512
MODE = 0o666  # any user may connect, and gets an error by name if not permitted
OWNER_MODE = 0o600  # root and spawnd's own user

Inode = tuple[int, int]  # device and number

MAX_CLIENTS = 1024
RESERVED = 16  # for root and spawnd's own user, so that no group can lock them out
# limits for all clients together, in bytes
MAX_CALLS = 8 << 20  # of incomplete calls
MAX_REPLIES = 64 << 20  # of unread replies; a list of ten thousand services takes 4 MB

MAX_REFUSED = 128  # clients that get a reply with the reason; further ones are only disconnected
REFUSED_LIMIT = 1 << 16  # bytes of the call that is answered with the refusal
REFUSED_TIMEOUT = 10.0  # seconds for a client to make that call


def open_listener(path: str, mode: int) -> socket.socket:
    """Return a listening socket at `path`, in place of any other file; the caller owns it.

    The socket is bound at its final path, so that getsockname(2) is right, and listens before its mode lets
    clients connect. Raises RuntimeFolderError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        umask = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        sock.listen(BACKLOG)
        os.chmod(path, mode)
    except OSError as error:
        sock.close()
        cause = error.strerror or str(error)
        raise RuntimeFolderError(f"cannot make control socket {quoted(path)}: {cause}") from error
    return sock


def inode_at(path: str) -> Inode | None:
    """Return device and inode of the file at `path` itself; None without one."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def answers(path: str) -> bool:
    """Whether a process listens on the socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno == errno.EPROTOTYPE  # a datagram socket cannot connect to one that listens
    return True


class Server:
    """Owns the listening socket at `path` and every connection.

    Servers share no queue and no limit: clients of one server cannot lock out those of another.
    """

    def __init__(
        self,
        loop: Loop,
        core: Core,
        path: str,
        when_reaped: WhenReaped,
        saved: Record | None = None,
        mode: int = MODE,
    ) -> None:
        """Make a socket or, with `saved` from before an exec, take over its socket and connections.

        The file at `path` gets the given mode. Raises RuntimeFolderError.
        """
        self._loop = loop
        self._core = core
        self._path = path
        self._mode = mode
        self._clients = Clients()
        self._refused: dict[Connection, Timer] = {}
        self._closing = ClosingQueue(loop, when_reaped)
        self._closing.on_room = lambda: self._acceptor.go_on()
        # connections to services; too many that hang in their close make calls fail
        self._channels = ClosingQueue(loop, when_reaped)
        self._turns = Turns(loop)
        self._callbacks = Callbacks(
            self._serve,
            self._clients.remove,
            self._turns.add,
            self._clients.holds,
            self.discard,
            partial(safe_close, self._channels),
            lambda: self._channels.has_room,
        )
        self._listener = open_listener(path, mode) if saved is None else _inherited(saved["listener"])
        self._inode = inode_at(path) if saved is None else _inode_of(saved, path)
        self._acceptor = Acceptor(loop, self._listener, self._take_in)
        self._watch = PathWatch(loop, path, self._look)
        if saved is not None:
            loop.call_soon(self._look)
        for record in saved["connections"] if saved is not None else ():
            sock = _inherited(record["fd"])
            self._connect(sock, peer_credentials(sock)).resume(record)

    def saved(self) -> Record:
        """Return what the next program needs to take over socket and connections, without refused clients."""
        connections = [connection.saved() for connection in self._clients]
        return {"listener": self._listener.fileno(), "inode": self._inode, "connections": connections}

    def close(self) -> None:
        """Close every connection and the socket, and remove it from the run-time folder."""
        self._watch.close()
        self._acceptor.stop()
        if inode_at(self._path) == self._inode:
            with suppress(OSError):
                os.unlink(self._path)
        self._closing.on_room = lambda: None
        with suppress(OSError):
            while True:  # no new client can connect; queued clients may have sent anything
                self.discard(self._listener.accept()[0])
        self._listener.close()
        self._clients.close()
        for connection in list(self._refused):
            connection.close()

    def end_watch(self) -> None:
        """Watch the path of the socket no longer: everything is being stopped."""
        self._watch.end()

    def look_again(self) -> None:
        """Watch the run-time folder again after it was made anew."""
        self._watch.renew()

    def discard(self, sock: socket.socket) -> None:
        """Close a connection without waiting for its remaining content.

        While too many connections hang in their close, the server accepts no clients.
        """
        had_room = self._closing.has_room
        safe_close(self._closing, sock)
        if had_room and not self._closing.has_room:
            self._acceptor.stop()
            log.error(
                "control socket %s: no clients are taken in: %s hang while they are closed, as descriptors were left "
                "in them",
                self._path,
                count(len(self._closing), "connection"),
            )

    def _look(self) -> None:
        """Bind the socket anew if its path leads to nothing, or to a file that no process serves."""
        present = inode_at(self._path)
        if present == self._inode:
            return
        if present is not None and answers(self._path):
            log.error("control socket %s: another process listens there; clients cannot reach spawnd", self._path)
            return
        try:
            listener = open_listener(self._path, self._mode)
        except RuntimeFolderError as error:
            log.error("%s", error)
            return
        notice("control socket %s was %s: bound anew", self._path, "deleted" if present is None else "replaced")
        self._inode = inode_at(self._path)
        self._acceptor.stop()
        old, self._listener = self._listener, listener
        with suppress(OSError):
            while True:  # clients that connected before the file was removed are served
                self._take_in(old.accept()[0])
        old.close()
        self._acceptor = Acceptor(self._loop, listener, self._take_in)

    # clients

    def _take_in(self, sock: socket.socket) -> None:
        """Serve or refuse a new client; takes over its socket."""
        try:
            client = peer_credentials(sock)
            is_permitted = permitted(client, sock, self._core.manager.settings.control_group)
        except OSError:
            self.discard(sock)
            return
        if not is_permitted:
            self._refuse(sock, client, PermissionDenied())
        elif not self._clients.make_room(client):
            self._refuse(sock, client, TooManyClients())
        else:
            self._connect(sock, client).read_now()

    def _connect(self, sock: socket.socket, client: Credentials) -> Connection:
        connection = Connection(self._loop, sock, client, self._callbacks)
        self._clients.add(connection)
        return connection

    def _refuse(self, sock: socket.socket, client: Credentials, error: ControlError) -> None:
        """Answer the client's first call with the error."""
        if len(self._refused) >= MAX_REFUSED:
            self.discard(sock)
            return
        fail = partial(PendingCall.fail, error=error)
        callbacks = Callbacks(fail, self._forget, self._turns.add, discard=self.discard, limit=REFUSED_LIMIT)
        connection = Connection(self._loop, sock, client, callbacks)
        self._refused[connection] = self._loop.call_later(REFUSED_TIMEOUT, connection.close)

    def _forget(self, connection: Connection) -> None:
        self._refused.pop(connection).cancel()

    # calls

    def _serve(self, pending: PendingCall) -> None:
        try:
            if pending.call.upgrade:
                raise InvalidParameter("upgrade")
            handler = METHODS.get(pending.call.method)
            if handler is None:
                raise MethodNotFound(pending.call.method)
            handler(pending, self._core)
        except ControlError as error:
            pending.fail(error)
        except Exception as error:
            log.error("unexpected error in %s", pending.call.method, exc_info=error)
            pending.fail(Failed(f"unexpected error: {error}"))


def _inode_of(saved: Record, path: str) -> Inode | None:
    """Return the socket file from before an exec; without one, the file at `path`."""
    return (saved["inode"][0], saved["inode"][1]) if saved.get("inode") else inode_at(path)


def _inherited(fd: int) -> socket.socket:
    """Return a socket from before the exec, close-on-exec again."""
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


class Clients:
    """The connected clients. To make room for another, the client that has been silent longest is disconnected."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._calls = Budget()
        self._replies = Budget()

    def make_room(self, client: Credentials) -> bool:
        """Return whether there is room for another client; a silent client may be disconnected for it."""
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
        """Note the bytes kept for a connection. Above a limit, close the connection that has held bytes for longest."""
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
    """Bytes that connections hold, in the order in which they began to hold any."""

    def __init__(self) -> None:
        self._held: dict[Connection, int] = {}
        self._total = 0

    def hold(self, connection: Connection, size: int) -> None:
        """Set the bytes of a connection."""
        self._total += size - self._held.get(connection, 0)
        if size:
            self._held[connection] = size
        else:
            self._held.pop(connection, None)

    def keep(self, limit: int) -> None:
        """Close connections, which then hold nothing, until the total is within the limit."""
        while self._total > limit:
            next(iter(self._held)).close()


def permitted(client: Credentials, sock: socket.socket, control_group: int | None) -> bool:
    """Whether a client may use the control socket: root, spawnd's own user, and members of `control_group` (a gid).

    `sock` has the supplementary groups of the client at its connect.
    """
    if is_privileged(client):
        return True
    if control_group is None:
        return False
    return control_group == client.gid or control_group in _groups(sock)


def is_privileged(client: Credentials) -> bool:
    """Whether a client is root or the user that spawnd runs as."""
    return client.uid in (0, os.geteuid())


def _groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        return peer_groups(sock)
    except OSError:  # without known groups, the client is no member
        return ()
