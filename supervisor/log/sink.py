"""Where lines of a log go, without ever blocking: `write` says whether a line was taken."""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress
from typing import Protocol

MAX_LINE = 4096  # what a pipe takes whole or not at all (PIPE_BUF)
_DAEMON = 3 << 3  # syslog's facility "daemon"


class Sink(Protocol):
    def write(self, line: bytes) -> bool:
        """Write one line of at most MAX_LINE bytes, its newline included; False where that would block or fails."""

    def close(self) -> None:
        """Close what the sink opened."""


class StreamSink:
    """A descriptor that other processes write to as well, which stays its owner's.

    O_NONBLOCK cannot be set on it: the flag is shared with them.  A pipe or a terminal is
    opened once more instead, where that is permitted, and this is the sink's; a socket has a flag
    for each message.
    """

    def __init__(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._fd = self._given = fd
        self._is_socket = stat.S_ISSOCK(mode)
        self._may_block = not stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(f"/proc/self/fd/{fd}", flags)
                self._may_block = False

    def write(self, line: bytes) -> bool:
        try:
            if self._is_socket:
                return _send(self._fd, line)
            return (not self._may_block or _has_room(self._fd)) and os.write(self._fd, line) == len(line)
        except OSError:
            return False

    def close(self) -> None:
        if self._fd != self._given:
            os.close(self._fd)
            self._fd = self._given


def _has_room(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _send(fd: int, line: bytes) -> bool:
    with socket.socket(fileno=os.dup(fd)) as stream:
        return stream.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(line)


class SyslogSink:
    """The syslog daemon at `/dev/log`, found again when it was restarted.  Lines begin with `<PRIORITY>`."""

    def __init__(self, name: str, address: str = "/dev/log") -> None:
        self._name = name
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, line: bytes) -> bool:
        priority, _, text = line.rstrip(b"\n").partition(b">")
        number = _DAEMON | int(priority[1:])
        try:
            self._socket.sendto(b"<%d>%s[%d]: %s" % (number, self._name.encode(), os.getpid(), text), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
