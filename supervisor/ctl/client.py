"""The connection to the supervisor: one call after the other, each waited for."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
import time

from supervisor.ctl.errors import (
    ConnectionLost,
    MalformedReply,
    NoSupervisor,
    NotPermitted,
    SpawnctlError,
    from_reply,
)
from supervisor.json_text import dumps
from supervisor.places import owner_socket
from supervisor.printable import quoted

TYPE_CHECKING = False  # `typing` would take longer to import than the rest of this takes to run
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHUNK = 1 << 18
PATIENCE = 2.0  # seconds for the answer to a question that takes no time
SILENT = 4.0  # seconds without a reply, after which the supervisor is asked whether it answers at all, and again
LARGEST = 64 << 20  # bytes of a reply; no supervisor has more to say, and anybody may listen on a socket
TOO_LONG = f"the reply has more than {LARGEST >> 20} MiB"


class Client:
    """Connects at the first call.  Owns its socket until `close`.

    `patience` is how many seconds a call may take; None: any time.  `replied` is the method whose reply came last.
    """

    def __init__(self, path: str, patience: float | None = None) -> None:
        self.path = path
        self.replied = ""
        self._patience = patience
        self._sock: socket.socket | None = None
        self._looks = patience is None  # for a supervisor that does not answer: that has not been said yet

    def call(self, method: str, /, **parameters: object) -> dict[str, Any]:
        """The parameters of the reply to method `io.spawnd.METHOD`.  Raises SpawnctlError."""
        self.begin(method, **parameters)
        return self.finish(method)

    def begin(self, method: str, /, **parameters: object) -> None:
        """Make a call; `finish` has to follow, or `close`.  Raises SpawnctlError."""
        try:
            self._send({"method": f"io.spawnd.{method}", "parameters": parameters})
        except (OSError, ValueError, RecursionError) as error:
            raise self._no_answer(error) from error

    def has_reply(self, seconds: float | None) -> bool:
        """Wait so long (None: any time) for the reply to begin, or for the connection to end; whether it has.

        Where the supervisor answers nobody meanwhile, that is said on stderr, once.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while self._looks and (end is None or end - time.monotonic() > SILENT):
            if self._poll(SILENT):
                return True
            self._look()
        return self._poll(None if end is None else max(end - time.monotonic(), 0.0))

    def _poll(self, seconds: float | None) -> bool:
        assert self._sock is not None
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _look(self) -> None:
        """Say on stderr, once, that the supervisor does not answer, where it answers no other call either."""
        if answers(self.path):
            return
        from supervisor.ctl.silence import tell_of_silence  # few have to wait

        tell_of_silence(self.path, self.server_pid())
        self._looks = False

    def finish(self, method: str) -> dict[str, Any]:
        """The parameters of the reply to the call that was begun.  Raises SpawnctlError."""
        if self._looks:
            self.has_reply(None)
        try:
            reply = json.loads(self._receive())
        except (OSError, ValueError, RecursionError) as error:
            raise self._no_answer(error) from error
        return self._result(method, reply)

    def stream(self, method: str, /, **parameters: object) -> Iterator[dict[str, Any]]:
        """The parameters of one reply after the other.  Raises SpawnctlError, BrokenPipeError: nobody reads our output.

        To be gone through to its end, or `close` has to follow.
        """
        rest = bytearray()
        try:
            self._send({"method": f"io.spawnd.{method}", "parameters": parameters, "more": True})
            if self._looks and not self._poll(SILENT):
                self._look()
            continues = True
            while continues:
                reply = json.loads(self._next(rest))
                result = self._result(method, reply)
                continues = reply.get("continues", False)
                yield result
        except BrokenPipeError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise self._no_answer(error) from error

    def server_pid(self) -> int:
        """The process id of the supervisor, as far as this process can see it; 0 where it cannot."""
        import struct  # takes a while to import

        sock = self._sock = self._sock or self._connect()
        ucred = struct.Struct("3i")  # <linux/socket.h>
        pid: int = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))[0]
        return pid

    def wait_closed(self, end: float | None = None) -> bool:
        """Wait until the supervisor has closed the connection, or until `end` (monotonic time); whether it has."""
        assert self._sock is not None
        try:
            while self._poll(None if end is None else max(end - time.monotonic(), 0.0)):
                if not self._sock.recv(CHUNK):
                    return True
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connect(self) -> socket.socket:
        """Connect to the owner's socket where this is its user: nobody else can keep it busy."""
        owner = owner_socket(self.path)
        if _is_ours(owner):
            try:
                return self._connect_to(owner)
            except SpawnctlError:
                pass  # that of a supervisor which is gone
        return self._connect_to(self.path)

    def _connect_to(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._patience)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                raise NotPermitted(self.path) from error
            raise NoSupervisor(self.path, error.strerror or str(error)) from error
        return sock

    def _no_answer(self, error: Exception) -> ConnectionLost:
        return ConnectionLost(f"the supervisor at {quoted(self.path)} did not answer: {error}")

    def _result(self, method: str, reply: object) -> dict[str, Any]:
        self.replied = method
        parameters = (reply.get("parameters") or {}) if isinstance(reply, dict) else None
        if not isinstance(reply, dict) or not isinstance(parameters, dict):
            raise self.malformed("it is no object")
        if "error" not in reply:
            return parameters
        try:
            error = from_reply(self.path, str(reply["error"]), parameters)
        except (TypeError, ValueError) as wrong:
            raise self.malformed(f"{reply['error']} is no error that spawnd sends") from wrong
        raise error

    def malformed(self, cause: object) -> MalformedReply:
        """The error for a reply that nobody here understands."""
        reply = f"the reply of the supervisor at {quoted(self.path)} to {self.replied}"
        return MalformedReply(f"cannot understand {reply}: {cause}")

    def _send(self, call: dict[str, object]) -> None:
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.sendall(dumps(call).encode() + b"\0")
        except (BrokenPipeError, ConnectionResetError):
            pass  # who refuses us may have closed already, after saying why

    def _receive(self) -> bytes:
        assert self._sock is not None
        deadline = None if self._patience is None else time.monotonic() + self._patience
        chunks = []
        room = LARGEST
        while room > 0 and (chunk := self._sock.recv(CHUNK)):
            chunks.append(chunk)
            if chunk.endswith(b"\0"):
                return b"".join(chunks)[:-1]
            room -= len(chunk)
            if deadline is not None:
                self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
        raise self._closed() if room > 0 else ValueError(TOO_LONG)

    def _next(self, rest: bytearray) -> bytes:
        """The next of several messages; `rest` is what came of those after it."""
        assert self._sock is not None
        while b"\0" not in rest:
            if len(rest) > LARGEST:
                raise ValueError(TOO_LONG)
            wait_readable(self._sock)
            chunk = self._sock.recv(CHUNK)
            if not chunk:
                raise self._closed()
            rest += chunk
        message, _, after = rest.partition(b"\0")
        rest[:] = after
        return bytes(message)

    def _closed(self) -> ConnectionLost:
        return ConnectionLost(f"the supervisor at {quoted(self.path)} closed the connection")


def answers(path: str) -> bool:
    """Whether the supervisor at `path` answers a call over a new connection."""
    client = Client(path, PATIENCE)
    try:
        client.call("GetVersion")
    except NoSupervisor as error:  # the end of the connection will be seen; a backlog may be full
        return not isinstance(error.__cause__, TimeoutError)
    except ConnectionLost:
        return False
    except SpawnctlError:  # it answers, though with an error
        return True
    finally:
        client.close()
    return True


def _is_ours(path: str) -> bool:
    """Whether this user has made the file itself: in a folder of others anybody could have."""
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def wait_readable(sock: socket.socket) -> None:
    """Wait for something to read.  Raises BrokenPipeError when nobody reads standard output any more."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    try:
        poll.register(sys.stdout.fileno(), 0)  # errors are told unasked
    except (OSError, ValueError):
        pass  # it is closed, or no file
    for fd, events in poll.poll():
        if fd != sock.fileno() and events & select.POLLERR:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
