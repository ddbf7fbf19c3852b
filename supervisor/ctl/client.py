"""The connection to the supervisor, with one synchronous call at a time."""

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

TYPE_CHECKING = False  # the import of `typing` would take longer than the rest of a run
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHUNK = 1 << 18
PATIENCE = 2.0  # seconds to wait for a reply that should come at once
SILENT = 4.0  # seconds without a reply until a second connection tests whether the supervisor answers
LARGEST = 64 << 20  # bytes of a reply; a supervisor sends less, but any program may listen on a socket
TOO_LONG = f"the reply has more than {LARGEST >> 20} MiB"


class Client:
    """A client that connects at its first call and owns its socket until `close`.

    `patience` limits a call, in seconds; None: no limit. `replied` is the method of the last reply.
    """

    def __init__(self, path: str, patience: float | None = None) -> None:
        self.path = path
        self.replied = ""
        self._patience = patience
        self._sock: socket.socket | None = None
        self._looks = patience is None  # whether a silent supervisor still has to be reported

    def call(self, method: str, /, **parameters: object) -> dict[str, Any]:
        """Call method `io.spawnd.METHOD` and return the parameters of the reply. Raises SpawnctlError."""
        self.begin(method, **parameters)
        return self.finish(method)

    def begin(self, method: str, /, **parameters: object) -> None:
        """Send a call; `finish` or `close` has to follow. Raises SpawnctlError."""
        try:
            self._send({"method": f"io.spawnd.{method}", "parameters": parameters})
        except (OSError, ValueError, RecursionError) as error:
            raise self._no_answer(error) from error

    def has_reply(self, seconds: float | None) -> bool:
        """Wait for the reply to begin or the connection to end; return False after `seconds` (None: no limit).

        If the supervisor answers no other call meanwhile either, a message on stderr says so, once.
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
        """Report once on stderr that the supervisor is silent, if it answers no other call either."""
        if silence := self.silence():
            from supervisor.ctl.silence import tell_of_silence  # rarely needed

            tell_of_silence(silence)
            self._looks = False

    def silence(self) -> str:
        """Return the reason why the supervisor answers no call, on a new connection either; '' if it does."""
        if answers(self.path):
            return ""
        from supervisor.ctl.silence import describe_silence  # rarely needed

        return describe_silence(self.path, self.server_pid())

    def finish(self, method: str) -> dict[str, Any]:
        """Return the parameters of the reply to the call of `begin`. Raises SpawnctlError."""
        if self._looks:
            self.has_reply(None)
        try:
            reply = json.loads(self._receive())
        except (OSError, ValueError, RecursionError) as error:
            raise self._no_answer(error) from error
        return self._result(method, reply)

    def stream(self, method: str, /, **parameters: object) -> Iterator[dict[str, Any]]:
        """Yield the parameters of each reply. Raises SpawnctlError; BrokenPipeError if our output has no reader.

        The caller exhausts the iterator, or calls `close`.
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
        """Return the process id of the supervisor, or 0 if it is in an invisible PID namespace."""
        import struct  # takes a while to import

        sock = self._sock = self._sock or self._connect()
        ucred = struct.Struct("3i")  # <linux/socket.h>
        pid: int = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))[0]
        return pid

    def wait_closed(self, end: float | None = None) -> bool:
        """Wait until the supervisor closes the connection; return False at `end` (monotonic time)."""
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
        """Connect to the owner's socket if this user owns it, because no other user can keep that socket busy."""
        owner = owner_socket(self.path)
        if _is_ours(owner):
            try:
                return self._connect_to(owner)
            except SpawnctlError:
                pass  # a stale socket of a supervisor that has ended
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
            raise self.malformed("it is not an object")
        if "error" not in reply:
            return parameters
        try:
            error = from_reply(self.path, str(reply["error"]), parameters)
        except (TypeError, ValueError) as wrong:
            raise self.malformed(f"{reply['error']} is not an error of spawnd") from wrong
        raise error

    def malformed(self, cause: object) -> MalformedReply:
        """Return the error for a reply that spawnctl cannot understand."""
        reply = f"the reply of the supervisor at {quoted(self.path)} to {self.replied}"
        return MalformedReply(f"cannot understand {reply}: {cause}")

    def _send(self, call: dict[str, object]) -> None:
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.sendall(dumps(call).encode() + b"\0")
        except (BrokenPipeError, ConnectionResetError):
            pass  # a supervisor that refuses a client sends the reason before it closes

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
        """Return the next of several messages; `rest` holds the bytes already received after it."""
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
    """Whether the supervisor at `path` answers a call on a new connection."""
    client = Client(path, PATIENCE)
    try:
        client.call("GetVersion")
    except NoSupervisor as error:  # the caller notices the end of the connection; the backlog may be full
        return not isinstance(error.__cause__, TimeoutError)
    except ConnectionLost:
        return False
    except SpawnctlError:  # an error is an answer as well
        return True
    finally:
        client.close()
    return True


def _is_ours(path: str) -> bool:
    """Whether this user made the file: in a shared folder, any user could have."""
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def wait_readable(sock: socket.socket) -> None:
    """Wait for input from `sock`. Raises BrokenPipeError if standard output has lost its reader."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    try:
        poll.register(sys.stdout.fileno(), 0)  # poll reports errors in any case
    except (OSError, ValueError):
        pass  # closed, or not a file
    for fd, events in poll.poll():
        if fd != sock.fileno() and events & select.POLLERR:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
