"""The connection to the supervisor: one call after the other, each waited for."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys

from supervisor.ctl.errors import ConnectionLost, NoSupervisor, NotPermitted, from_reply

TYPE_CHECKING = False  # `typing` would take longer to import than the rest of this takes to run
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHUNK = 1 << 18


class Client:
    """Connects at the first call.  Owns its socket until `close`.

    `patience` is how many seconds it waits for anything; None: for ever.
    """

    def __init__(self, path: str, patience: float | None = None) -> None:
        self.path = path
        self._patience = patience
        self._sock: socket.socket | None = None

    def call(self, method: str, /, **parameters: object) -> dict[str, Any]:
        """The parameters of the reply to method `io.spawnd.METHOD`.  Raises SpawnctlError."""
        try:
            self._send({"method": f"io.spawnd.{method}", "parameters": parameters})
            reply = json.loads(self._receive())
        except (OSError, ValueError) as error:
            raise self._no_answer(error) from error
        return self._result(reply)

    def stream(self, method: str, /, **parameters: object) -> Iterator[dict[str, Any]]:
        """The parameters of one reply after the other.  Raises SpawnctlError, BrokenPipeError: nobody reads our output.

        To be gone through to its end, or `close` has to follow.
        """
        rest = bytearray()
        try:
            self._send({"method": f"io.spawnd.{method}", "parameters": parameters, "more": True})
            continues = True
            while continues:
                reply = json.loads(self._next(rest))
                continues = reply.get("continues", False)
                yield self._result(reply)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise self._no_answer(error) from error

    def server_pid(self) -> int:
        """The process id of the supervisor, as far as this process can see it; 0 where it cannot."""
        import struct  # takes a while to import

        sock = self._sock = self._sock or self._connect()
        ucred = struct.Struct("3i")  # <linux/socket.h>
        pid: int = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))[0]
        return pid

    def wait_closed(self) -> None:
        """Wait until the supervisor has closed the connection."""
        assert self._sock is not None
        try:
            while self._sock.recv(CHUNK):
                pass
        except ConnectionResetError:
            pass

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._patience)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                raise NotPermitted(self.path) from error
            raise NoSupervisor(self.path, error.strerror or str(error)) from error
        return sock

    def _no_answer(self, error: Exception) -> ConnectionLost:
        return ConnectionLost(f"the supervisor at {self.path!r} did not answer: {error}")

    def _result(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "error" in reply:
            raise from_reply(self.path, reply["error"], reply.get("parameters") or {})
        result: dict[str, Any] = reply.get("parameters") or {}
        return result

    def _send(self, call: dict[str, object]) -> None:
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.sendall(json.dumps(call).encode() + b"\0")
        except (BrokenPipeError, ConnectionResetError):
            pass  # who refuses us may have closed already, after saying why

    def _receive(self) -> bytes:
        assert self._sock is not None
        chunks = []
        while chunk := self._sock.recv(CHUNK):
            chunks.append(chunk)
            if chunk.endswith(b"\0"):
                return b"".join(chunks)[:-1]
        raise self._closed()

    def _next(self, rest: bytearray) -> bytes:
        """The next of several messages; `rest` is what came of those after it."""
        assert self._sock is not None
        while b"\0" not in rest:
            wait_readable(self._sock)
            chunk = self._sock.recv(CHUNK)
            if not chunk:
                raise self._closed()
            rest += chunk
        message, _, after = rest.partition(b"\0")
        rest[:] = after
        return bytes(message)

    def _closed(self) -> ConnectionLost:
        return ConnectionLost(f"the supervisor at {self.path!r} closed the connection")


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
