"""The side of a service in systemd's protocols: sd_notify(3), and descriptors by sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Sequence

from supervisor.linux.descriptors import CLOSE_RANGE_CLOEXEC, close_range

FIRST = 3  # SD_LISTEN_FDS_START

LAST_VARIABLE = "SPAWND_LAST"  # in the environment of a process that is started only to be stopped


class Sender:
    """Sender to the notification socket at `address`, a path, or `@name` for an abstract one. Owns its socket.

    Without an address it does nothing.
    """

    def __init__(self, address: str) -> None:
        self.given = address
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    @classmethod
    def from_environment(cls) -> Sender:
        """Make a sender for `$NOTIFY_SOCKET`, and remove the variable, so that no child sends in our name."""
        return cls(os.environ.pop("NOTIFY_SOCKET", ""))

    @property
    def leads_somewhere(self) -> bool:
        return bool(self._address)

    def send_nowait(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send one datagram of `KEY=value` lines; return False if it could not be sent: no receiver, or queue full."""
        if self._socket is None:
            return False
        try:
            # not socket.send_fds, which ignores flags and address in Python 3.11
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
            self._socket.sendmsg(["\n".join(lines).encode()], rights, socket.MSG_DONTWAIT, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def passed_descriptors() -> list[tuple[str, int]]:
    """Return names and descriptors passed to this process at its start, in order; the caller owns the descriptors.

    Removes the variables from the environment. The list is empty if they are absent or for another process.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    passed = [(names[number] if number < len(names) else "", FIRST + number) for number in range(int(count))]
    if passed:
        _close_on_exec(FIRST, passed[-1][1])
    return passed


def _close_on_exec(first: int, last: int) -> None:
    try:
        close_range(first, last, CLOSE_RANGE_CLOEXEC)  # a worker may get thousands
    except OSError:  # Linux 5.10
        for fd in range(first, last + 1):
            os.set_inheritable(fd, False)
