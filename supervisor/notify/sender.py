"""The sending end of the notification protocol: `sd_notify(3)`."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Sequence


class Sender:
    """Sends to the notification socket at `address` (a path, or `@name` for an abstract one), which is `given`.

    Without an address (nobody wants to hear it) it does nothing.  Owns its socket.
    """

    def __init__(self, address: str) -> None:
        self.given = address
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    @classmethod
    def from_environment(cls) -> Sender:
        """For `$NOTIFY_SOCKET`, which is removed, so that no child of ours speaks for us."""
        return cls(os.environ.pop("NOTIFY_SOCKET", ""))

    @property
    def leads_somewhere(self) -> bool:
        return bool(self._address)

    def send_nowait(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send one datagram of `KEY=value` lines.  False where it could not be sent: nobody there, or queue full."""
        if self._socket is None:
            return False
        try:
            # not socket.send_fds, which forgets flags and address in Python 3.11
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
            self._socket.sendmsg(["\n".join(lines).encode()], rights, socket.MSG_DONTWAIT, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
