"""`syslog`: messages for the system's log, over `/dev/log` like syslog(3) (RFC 3164's priorities).

The function of libc does not report that no daemon listens, so it is not used.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping

from workers.lua.state import Value, with_errno

PLACE = "/dev/log"
DAEMON = 3 << 3  # LOG_DAEMON
LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")  # by number


class Syslog:
    """Messages have `ident`; without a socket at `place` they go to stderr, after their level."""

    name = "syslog"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self, place: str = PLACE) -> None:
        self._place = place
        self.ident = ""
        self._socket: socket.socket | None = None
        self.functions = with_errno({"log": self._log, "open": self._open, "close": self.close})

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, ident: bytes) -> None:
        self.ident = os.fsdecode(ident)

    def _log(self, level: bytes, message: bytes) -> None:
        number = LEVELS.index(level.decode())
        try:
            self._send(f"<{DAEMON | number}>{self._name()}[{os.getpid()}]: ".encode(errors="surrogateescape") + message)
        except (FileNotFoundError, ConnectionRefusedError):
            self.close()
            line = f"{self._name()}: {level.decode()}: ".encode(errors="surrogateescape")
            os.write(2, line + message.replace(b"\n", b" ") + b"\n")

    def _send(self, data: bytes) -> None:
        try:
            self._connected().send(data)
        except (ConnectionError, FileNotFoundError):
            self.close()  # the daemon was restarted
            self._connected().send(data)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                made.connect(self._place)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _name(self) -> str:
        return self.ident or os.path.basename(sys.argv[0]) or "spawnd"
